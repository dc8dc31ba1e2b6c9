#ifndef XD_EMB_INSN_H
#define XD_EMB_INSN_H
#include "state.h"

/*
 * What one instruction of a vCPU does to memory: the hardware's look, and the emulator after it. The own thread of the
 * vCPU, `v`, calls all of this. a: an access. gpa, size: where it begins, and its bytes.
 */

/* How an emulation pass ended; negative: -errno. */
enum {
    EMB_DONE = 0,
    EMB_PENDING = 1, /* a request is posted, and the instruction is emulated again when it is answered */
    EMB_RETRY = 2    /* nobody owns the type: the instruction starts again after a change of types or claim */
};

/* The part of an access that lies in one page. */
typedef struct emb_part {
    uint64_t gpa;
    uint32_t offset; /* of this part in the access */
    uint32_t size;
    uint32_t done;   /* bytes that requests have taken care of, and will not be asked about again */
    bool io;         /* it is in Xen's MMIO cache: no copy is tried any more */
    bool copied;     /* the emulator has copied it, in some pass */
} emb_part;

/* One access of an instruction: up to 64 bytes, in one page or two. */
typedef struct emb_access {
    emb_vcpu *v;
    uint8_t *bytes;      /* what is stored, or where a load goes */
    emb_part parts[2];
    uint32_t nr_parts;
    uint32_t fault_part; /* the part whose page the hardware tripped over */
    uint32_t chunk;      /* all requests are of this size; 0: each as large as can be */
    bool write;
    bool locked;         /* p2m is held */
    uint32_t answered;   /* 1 + the part whose answer this pass has not come to yet; 0: none */
    bool lying;          /* there is an answer that the emulator has not asked for again */
    bool no_copy;        /* the emulator does not look whether it is memory by now */
    bool after_input;    /* the instruction reads a port before it stores: INS */
    bool memory_first;   /* before 4.12: memory is tried before requests, even in the page at fault */
} emb_access;

/* What emb_begin says of an access; negative: -errno. */
enum {
    EMB_BY_EMULATOR = 0, /* the emulator must do it; the vCPU is in XEN, with p2m held where the rules say so (a->locked) */
    EMB_BY_GUEST = 1,    /* it may be done on memory; the vCPU is in GUEST */
    EMB_BY_SHADOW = 2    /* a store to a read-only page, for the emulator of shadow paging; the vCPU is in XEN */
};

/*
 * Begins an instruction: enters the guest and looks. Returns EMB_BY_*, or -errno. *generation receives what
 * emb_sleep_until_bumped wants if an emulator then says EMB_RETRY. Called by vcpu_rmw.c.
 */
int emb_begin(emb_access *a, uint64_t gpa, uint32_t size, uint32_t *generation);

/*
 * Emulates the access, in as many passes as it needs. Returns EMB_DONE, EMB_RETRY or -errno, with p2m released. Called
 * by vcpu_rmw.c.
 */
int emb_emulate(emb_access *a);

/* Divides an access of `size` bytes at `gpa` into its parts. Called by C files of this folder. */
void emb_split(emb_access *a, uint64_t gpa, uint32_t size);

/* Releases p2m if the access holds it. Called by vcpu_rmw.c. */
void emb_unlock(emb_access *a);

/*
 * Returns what a mapping of all pages of the access finds (hvmemul_map_linear_addr): DIRECT, or what is in its way.
 * Called by vcpu_rmw.c.
 */
uint32_t emb_mapping_look(const emb_access *a);

/* Executes a whole store of 1 to 64 bytes at `from`. Returns 0 or -errno. Called by vcpu_repeat.c and vcpu_run.c. */
int emb_store(emb_vcpu *v, uint64_t gpa, const uint8_t *from, uint32_t size);
/* Executes a whole load of 1 to 64 bytes to `to`. Returns 0 or -errno. Called by C files of this folder. */
int emb_load(emb_vcpu *v, uint64_t gpa, uint8_t *to, uint32_t size);

/*
 * Executes the store of an INS, which has read its port; the bytes are at `from`. Returns 0 or -errno. If the store
 * needs a request, Xen crashes the domain when it is answered: the next pass begins with the port again, and meets the
 * answer of the store (hvmemul_do_io). Called by ports.c.
 */
int emb_store_input(emb_vcpu *v, uint64_t gpa, const uint8_t *from, uint32_t size);

#endif
