#ifndef XD_XEN_TYPES_H
#define XD_XEN_TYPES_H
/*
 * The headers of this folder are plain declarations, read twice. The C compiler sees them after Xen's own headers, so
 * that a prototype here that is not Xen's is an error; cffi sees them without their preprocessor lines. What Xen's
 * headers define, and C therefore does not want again, stands between #ifndef __XEN_PUBLIC_XEN_H__ and #endif: only
 * cffi reads that, and checks each struct's layout against the compiler's.
 */
#include <stddef.h>
#include <stdint.h>
#include <xendevicemodel.h>
#include <xenevtchn.h>
#include <xenforeignmemory.h>
#include <xentoolcore.h>
#include <xentoollog.h>

#ifndef __XEN_PUBLIC_XEN_H__
typedef uint16_t domid_t;
typedef uint16_t ioservid_t;
typedef uint32_t evtchn_port_t;
typedef unsigned long xen_pfn_t;
typedef int xenevtchn_port_or_error_t;
typedef struct xendevicemodel_handle xendevicemodel_handle;
typedef struct xenforeignmemory_handle xenforeignmemory_handle;
typedef struct xenforeignmemory_resource_handle xenforeignmemory_resource_handle;
typedef struct xenevtchn_handle xenevtchn_handle;
struct xentoollog_logger;
struct xen_dm_op_modified_memory_extent {
    uint32_t nr;
    uint32_t pad;
    uint64_t first_pfn;
};
#endif

#endif
