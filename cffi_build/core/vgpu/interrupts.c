#include "interrupts.h"

#include <stdbool.h>

/* Registers of a bank, from its first. */
enum { ISR = 0, IMR = 4, IIR = 8, IER = 12, BANK_SIZE = 16, BANKS = 4 };
enum { MASTER_ENABLE = 1u << 31 };

static uint32_t bank_register(const xd_gpu *gpu, uint32_t bank, uint32_t which)
{
    return xd_register(gpu, GT_ISR + BANK_SIZE * bank + which);
}

/* Returns the pending bits of the master register. Bank 2 is of power management, which has no events. */
static uint32_t pending_bits(const xd_gpu *gpu)
{
    static const uint32_t low[BANKS] = {1 << 0, 1 << 2, 1 << 4, 1 << 6};
    static const uint32_t high[BANKS] = {1 << 1, 1 << 3, 1 << 4, 1 << 6};
    uint32_t pending = 0;
    for (uint32_t bank = 0; bank < BANKS; bank++) {
        uint32_t bits = bank_register(gpu, bank, IIR) & bank_register(gpu, bank, IER);
        pending |= (bits & 0xffff ? low[bank] : 0) | (bits >> 16 ? high[bank] : 0);
    }
    return pending;
}

int xd_interrupt_pending(const xd_gpu *gpu)
{
    return xd_register(gpu, MASTER_IRQ) & MASTER_ENABLE && pending_bits(gpu);
}

/* Asks for what follows from a change; `before` is what xd_interrupt_pending returned before it. */
static void follow(xd_gpu *gpu, int before)
{
    int now = xd_interrupt_pending(gpu);
    if (now && !before) {
        gpu->attention |= XD_ATTENTION_INTERRUPT;
        gpu->counts.interrupts++;
    } else if (before && !now) {
        gpu->attention |= XD_ATTENTION_LINE_DOWN;
    }
}

void xd_interrupt_event(xd_gpu *gpu, uint32_t engine, uint32_t event)
{
    const xd_engine_kind *kind = &gpu->kinds[engine];
    uint32_t bit = 1u << (event + kind->shift);
    if (xd_register(gpu, kind->base + RING_IMR) & bit || bank_register(gpu, kind->bank, IMR) & bit)
        return;
    int before = xd_interrupt_pending(gpu);
    uint32_t iir = bank_register(gpu, kind->bank, IIR);
    if (iir & gpu->pages->interrupts.known[kind->bank] & bit)
        gpu->pages->interrupts.queued[kind->bank] |= bit;
    xd_register_store(gpu, GT_ISR + BANK_SIZE * kind->bank + IIR, iir | bit);
    follow(gpu, before);
}

uint32_t xd_interrupt_read(xd_gpu *gpu, uint32_t offset)
{
    uint32_t value = xd_register(gpu, offset);
    if (offset == MASTER_IRQ)
        return value | pending_bits(gpu);
    if (offset % BANK_SIZE == IIR)
        gpu->pages->interrupts.known[(offset - GT_ISR) / BANK_SIZE] |= value;
    return value;
}

static void clear(xd_gpu *gpu, uint32_t offset, uint32_t bits)
{
    xd_interrupt_state *state = &gpu->pages->interrupts;
    uint32_t bank = (offset - GT_ISR) / BANK_SIZE;
    uint32_t again = state->queued[bank] & bits;
    uint64_t *iir = (uint64_t *)(void *)(gpu->registers + offset); /* IIR, and IER above it */
    uint64_t *queued = (uint64_t *)(void *)&state->queued[bank & ~1u];
    uint64_t *known = (uint64_t *)(void *)&state->known[bank & ~1u];
    uint64_t shifted = (uint64_t)bits << (bank & 1 ? 32 : 0);
    const xd_change changes[] = {
        {iir, (*iir & ~(uint64_t)bits) | again}, {queued, *queued & ~shifted}, {known, *known & ~shifted}};
    xd_gpu_commit(gpu, changes, 3);
}

void xd_interrupt_write(xd_gpu *gpu, uint32_t offset, uint32_t value)
{
    int before = xd_interrupt_pending(gpu);
    if (offset == MASTER_IRQ)
        xd_register_store(gpu, offset, value & MASTER_ENABLE);
    else if (offset % BANK_SIZE == IIR)
        clear(gpu, offset, value);
    else if (offset % BANK_SIZE != ISR)
        xd_register_store(gpu, offset, value);
    follow(gpu, before);
}
