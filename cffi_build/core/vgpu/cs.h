#ifndef XD_CS_H
#define XD_CS_H

/*
 * What the parts of the command streamer share. For C files only: cffi does not read this header. The thread that serves
 * the guest calls every function here.
 *
 * cs: a run of an engine. space: the GGTT or the context's PPGTT; memory: how either is reached. A handler gets the dwords of its command. It returns XD_CS_IDLE when the command is done;
 * else a reason, and then it has done nothing, or what `cursor` says, and is called again. A handler that goes elsewhere
 * calls xd_cs_jump or xd_cs_leave.
 */
#include "gpu.h"
#include "interrupts.h"
#include "streamer.h"

#include <stdbool.h>
#include <stddef.h>

struct xd_cs {
    xd_gpu *gpu;
    xd_engine_state *state;
    xd_engine *engine;
    const xd_engine_kind *kind;
    uint32_t number;
    int after;       /* a reason for which the run must end when the command is done, or XD_CS_IDLE */
    uint64_t budget; /* that is left */
    bool jumped;     /* the command went elsewhere */
    bool spins;      /* it jumped backwards, and nothing has changed since the last such jump */
    uint64_t next;   /* where the command after this one is */
};
typedef struct xd_cs xd_cs;

/* Executes a command: the `count` dwords at `d`. */
typedef int (*xd_cs_handler)(xd_cs *cs, const uint32_t *d, uint32_t count);

extern const xd_gpu_space xd_ggtt;

/* Returns whether the current command has no privilege. Called by C files of this folder. */
static inline bool xd_cs_is_user(const xd_cs *cs)
{
    return cs->state->levels[cs->state->level].ppgtt != 0;
}

/*
 * Returns whether the command asks for the GGTT (`ggtt`) and has no privilege: then it has no effect. Called by C files of
 * this folder.
 */
static inline bool xd_cs_is_denied(const xd_cs *cs, bool ggtt)
{
    if (!ggtt || !xd_cs_is_user(cs))
        return false;
    cs->gpu->counts.denied++;
    return true;
}

/*
 * Returns the space of an access, the GGTT (`ggtt`) or the PPGTT. NULL if the PPGTT must be synced first: the handler returns
 * XD_CS_SYNC. Called by C files of this folder.
 */
static inline const xd_gpu_space *xd_cs_space(const xd_cs *cs, bool ggtt)
{
    if (ggtt)
        return &xd_ggtt;
    return cs->state->needs_sync ? NULL : &cs->engine->space;
}

/* Returns the address that two dwords are. Called by C files of this folder. */
static inline uint64_t xd_cs_address(const uint32_t *d)
{
    return (uint64_t)d[1] << 32 | d[0];
}

/*
 * Reads the 4 or 8 bytes (`size`) at `address`, whose lowest bits do not count, to *value; zeros if nothing is there.
 * Returns XD_CS_IDLE or a reason. Called by C files of this folder.
 */
int xd_cs_load(xd_cs *cs, const xd_gpu_space *space, uint64_t address, uint32_t size, uint64_t *value);
/*
 * Stores the low 4 or 8 bytes (`size`) of `value` at `address`, whose lowest bits do not count; nowhere if nothing is
 * there. Returns XD_CS_IDLE or a reason. A store to a page table that must be followed is done, and `after` says so. Called
 * by C files of this folder.
 */
int xd_cs_store(xd_cs *cs, const xd_gpu_space *space, uint64_t address, uint64_t value, uint32_t size);
/*
 * As xd_cs_store, in the GGTT, for what is no command's: status and images. If page tables must follow it, they do at the
 * next sync, so any number of these stores can be made one after the other. `address`, `value` and `size` are as there.
 * Returns XD_CS_IDLE or a reason. Called by context_image.c and execlists.c.
 */
int xd_cs_store_status(xd_cs *cs, uint64_t address, uint64_t value, uint32_t size);
/* Returns the reason of a run that an access which came to `result` cannot go on with. Called by C files of this folder. */
int xd_cs_reason(const xd_gpu_memory *memory, int result);

/* Returns the bytes of the engine's ring. Called by C files of this folder. */
static inline uint32_t xd_cs_ring_size(const xd_cs *cs)
{
    return (xd_register(cs->gpu, cs->kind->base + RING_CTL) & 0x1ff000) + XD_FRAME_SIZE;
}

/* The next command of the current level is at `ip`; in the ring, that is its head. Called by streamer.c. */
void xd_cs_set_ip(xd_cs *cs, uint64_t ip);

/* Returns the GGTT address of the context's own status page. Called by C files of this folder. */
uint64_t xd_cs_context(const xd_cs *cs);
/* Returns the GGTT address of the engine's status page. Called by C files of this folder. */
uint64_t xd_cs_status_page(const xd_cs *cs);

/* Goes on at `address` of `level`, in the PPGTT (`ppgtt`) or the GGTT. Called by mi_flow.c. */
void xd_cs_jump(xd_cs *cs, uint32_t level, uint64_t address, bool ppgtt);
/* Goes back to where the batch was started. Called by mi_flow.c and streamer.c. */
void xd_cs_leave(xd_cs *cs);
/* A register or memory has changed by a command: what waits may look again. Called by C files of this folder. */
static inline void xd_cs_progress(xd_cs *cs)
{
    cs->state->progress++;
}
/* Records an error of the current command: the engine stops. Returns XD_CS_ERROR. Called by C files of this folder. */
int xd_cs_error(xd_cs *cs);

#endif
