#include "sandbox.h"

#include <errno.h>
#include <sys/prctl.h>

int xd_no_new_privileges(void)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L) ? -errno : 0;
}
