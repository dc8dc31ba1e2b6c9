#ifndef XD_INTERRUPTS_H
#define XD_INTERRUPTS_H
#include <stdint.h>
#include "gpu.h"

/*
 * From an event of an engine to an interrupt of the device.
 *
 * An event passes the engine's RING_IMR and the bank's IMR, and sets a bit of IIR. IIR & IER of all banks make the pending
 * bits of the master register; while the master is enabled and one of them is set, the device has an interrupt. One
 * interrupt is sent when that begins; XD_ATTENTION_INTERRUPT asks for it. An event that comes after the guest has read its
 * bit of IIR, and before it clears the bit, is queued, and sets the bit again when it is cleared.
 *
 * The thread that serves the guest calls every function here. gpu: of the guest.
 */
enum {
    XD_EVENT_USER = 0,
    XD_EVENT_ERROR = 3,
    XD_EVENT_FLUSH = 4,
    XD_EVENT_CONTEXT_SWITCH = 8,
    XD_EVENT_SEMAPHORE = 11
};

#ifndef XD_CFFI
/* An event of `engine`, an XD_EVENT_*. Called by C files of this folder. */
void xd_interrupt_event(xd_gpu *gpu, uint32_t engine, uint32_t event);
/* Returns what the guest reads of the interrupt register at `offset`. Called by hot.c. */
uint32_t xd_interrupt_read(xd_gpu *gpu, uint32_t offset);
/* The guest writes `value` to the interrupt register at `offset`. Called by hot.c. */
void xd_interrupt_write(xd_gpu *gpu, uint32_t offset, uint32_t value);
#endif

/* Returns whether the device has an interrupt now. Called by vgpu/interrupts.py and streamer.c. */
int xd_interrupt_pending(const xd_gpu *gpu);

#endif
