#ifndef XD_XEN_TOOLCORE_H
#define XD_XEN_TOOLCORE_H
#include "types.h"

/*
 * tools/include/xentoolcore.h: confines every handle this process has open, of all Xen libraries; 0, or -1 with errno.
 */
int xentoolcore_restrict_all(domid_t domid);

#endif
