#ifndef XD_SANDBOX_H
#define XD_SANDBOX_H

/*
 * prctl(2) PR_SET_NO_NEW_PRIVS, which Python's os module lacks: from now on no program that this process executes gains
 * privileges. Returns 0 or -errno. It holds for the calling thread and those that it starts later. Called by
 * service/sandbox.py, before the daemon starts any.
 */
int xd_no_new_privileges(void);

#endif
