#ifndef XD_CONTEXT_IMAGE_H
#define XD_CONTEXT_IMAGE_H
#include <stdint.h>
#include "gpu.h"

/*
 * The image of a context in the GGTT, which a driver makes: page 0 is its status page, page 1 a program that loads its
 * registers, of MI_LOAD_REGISTER_IMM alone.
 *
 * Restore runs the program in two parts: the ring part, which ends at dword XD_IMAGE_RING; then the indirect context batch
 * that register 0x1c4 names, if any; then the rest. Save walks the same program and stores the registers' values to it.
 * Behind the ring part it writes a program of its own, for the registers of the engine that no driver writes there.
 * Drivers copy whole images, so it survives.
 *
 * A new context, whose image says "restore inhibit", gets the ring's registers and the PDPs from the image, and its other
 * registers have the values of a reset.
 *
 * The thread that serves the guest calls every function here. cs: a run of the engine that has the context.
 */
enum { XD_IMAGE_RING = 0xaa, XD_IMAGE_DWORDS = 1024 };

#ifndef XD_CFFI
struct xd_cs;
/* Does what the phase RESTORE or REST asks. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_context_restore(struct xd_cs *cs);
/* Saves the context, which has ended. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_context_save(struct xd_cs *cs);
/* Reads the ring's new tail from the image. Returns XD_CS_IDLE or a reason. Called by streamer.c. */
int xd_context_new_tail(struct xd_cs *cs);
#endif

#endif
