#ifndef XD_SANDBOX_H
#define XD_SANDBOX_H

/* prctl(2) PR_SET_NO_NEW_PRIVS, which Python's os module lacks. Returns 0 or a negative errno. */
int xd_no_new_privileges(void);

#endif
