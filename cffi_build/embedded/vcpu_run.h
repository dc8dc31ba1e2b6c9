#ifndef XD_EMB_RUN_H
#define XD_EMB_RUN_H
#include "domain.h"

#include <stdint.h>

/* Operations of a vCPU, in batches. An operation is one instruction, except for those that say otherwise. */
enum {
    XD_OP_STORE = 0,      /* 1, 2, 4 or 8 bytes of `value`; 1..64 bytes at `bytes` if that is not 0 */
    XD_OP_LOAD = 1,       /* 1, 2, 4 or 8 bytes into `result` */
    XD_OP_FILL = 2,       /* `count` stores of `size` bytes of `value`, upwards: a compiled memset */
    XD_OP_COPY = 3,       /* `count` bytes at `bytes` by stores of up to 8: a compiled memcpy */
    XD_OP_REP_STOS = 4,   /* `count` elements of `size` bytes of `value` */
    XD_OP_REP_MOVS = 5,   /* `count` elements of `size` bytes from `source` */
    XD_OP_XCHG = 6,       /* `value` goes in, the old value comes out in `result` */
    XD_OP_CMPXCHG = 7,    /* the same, if the old value is `expected`; `stored` says whether it was */
    XD_OP_REMOVE = 8,     /* hypercall: the guest gives back `count` frames from `gfn` */
    XD_OP_ADD = 9,        /* hypercall: `count` frames from `gfn` are RAM again, zero */
    XD_OP_OUT = 10,       /* `value` to `port`, 1, 2 or 4 bytes; 0xcf8 and 0xcfc reach PCI configuration space */
    XD_OP_IN = 11,        /* from `port` into `result` */
    XD_OP_MODIFY = 12,    /* or, and, xor or add (`modify`) of `value`, locked or not; the old value comes out */
    XD_OP_HYPERCALL = 13, /* hypercall: the guest gets `size` bytes from `bytes`; `result` is 0 or EFAULT */
    XD_OP_REP_OUTS = 14,  /* `count` elements of `size` bytes from `source` to `port` */
    XD_OP_REP_INS = 15,   /* `count` elements of `size` bytes from `port` to `target` */
    XD_OP_KINDS = 16
};
enum { XD_MODIFY_OR = 0, XD_MODIFY_AND = 1, XD_MODIFY_XOR = 2, XD_MODIFY_ADD = 3, XD_MODIFY_KINDS = 4 };

typedef struct xd_emb_op {
    union {
        uint64_t gpa;      /* the guest physical address of memory operations */
        uint64_t gfn;      /* REMOVE, ADD */
        uint64_t port;     /* OUT, IN, REP_OUTS, REP_INS */
    };
    uint64_t value;
    union {
        uint64_t bytes;    /* STORE, COPY, HYPERCALL: an address in this process */
        uint64_t source;   /* REP_MOVS, REP_OUTS: a guest physical address */
        uint64_t target;   /* REP_INS: a guest physical address */
        uint64_t expected; /* CMPXCHG */
        uint64_t modify;   /* MODIFY: XD_MODIFY_* */
    };
    uint64_t count;
    uint32_t size;         /* bytes of an element */
    uint16_t kind;         /* XD_OP_* */
    uint8_t down;          /* REP_*: 1 with the direction flag set */
    uint8_t stored;        /* out: whether a read-modify-write stored */
    uint64_t result;       /* out */
} xd_emb_op;

/*
 * Executes `count` operations, `ops`, on a vCPU, one after the other, up to the first that fails; *done receives how
 * many were finished, unless it is NULL. Two threads on one vCPU take turns, call by call. Returns 0; -ESRCH if the
 * domain is destroyed; -ENOTRECOVERABLE if it crashed; -EFAULT if the guest got a fault; -EINVAL for a bad operation.
 * Called by hypervisor/embedded/vcpu.py, in the thread that plays the vCPU.
 */
int xd_emb_run(xd_emb *domain, uint32_t vcpu, xd_emb_op *ops, int count, int *done);

#endif
