/* libxentoolcore.so.1 on the fake. */
#include "fakexen.h"

int xentoolcore_restrict_all(domid_t domid)
{
    if (fake.restricted_to >= 0 && fake.restricted_to != domid) {
        errno = EINVAL;
        return -1;
    }
    if (ENTER(-1, U64(domid)))
        return -1;
    fake.restricted_to = domid;
    return 0;
}
