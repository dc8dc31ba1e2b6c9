#include "hot.h"

#include "execlists.h"
#include "interrupts.h"
#include "streamer.h"

#include <stdbool.h>

enum { CSB_WRITE_MASK = 7, ALL_ENGINES = 4 };

static bool is_interrupt(uint32_t offset)
{
    return offset == MASTER_IRQ || (offset >= GT_ISR && offset < GT_ISR + 0x40);
}

static bool is_tlb(uint32_t offset)
{
    return offset >= RTCR && offset <= VTCR;
}

static bool is_of_engine(uint32_t from_base)
{
    return from_base == RING_ELSP || from_base == RING_CSB_PTR || from_base == RING_TIMESTAMP ||
           from_base == RING_TIMESTAMP_UDW || from_base == RING_CTX_TIMESTAMP || from_base == RING_EXECLIST_STATUS ||
           from_base == RING_EXECLIST_STATUS + 4;
}

/* Returns the engine that has the register at `offset` among these, or ALL_ENGINES. */
static uint32_t engine_of(const xd_gpu *gpu, uint32_t offset)
{
    for (uint32_t engine = 0; engine < XD_ENGINES; engine++)
        if (is_of_engine(offset - gpu->kinds[engine].base))
            return engine;
    return ALL_ENGINES;
}

static bool is_hot(const xd_gpu *gpu, uint32_t offset)
{
    return is_interrupt(offset) || is_tlb(offset) || engine_of(gpu, offset) != ALL_ENGINES;
}

static uint32_t read_one(xd_gpu *gpu, uint32_t offset)
{
    if (is_interrupt(offset))
        return xd_interrupt_read(gpu, offset);
    return xd_cs_register(gpu, 0, offset);
}

/* The translations of the engine that a TLB register is for are as old as they may be. */
static void invalidate(xd_gpu *gpu, uint32_t offset)
{
    xd_cs_invalidate(gpu, offset == RTCR ? 0 : offset == BTCR ? 1 : offset == VTCR ? 3 : 2);
}

/* Executes what was submitted, as far as that goes without help. */
static int run_inside(xd_gpu *gpu, uint32_t engine)
{
    switch (xd_cs_run(gpu, engine, gpu->run_inside)) {
    case XD_CS_NEED:
    case XD_CS_SYNC:
    case XD_CS_DIRECTORY:
        return XD_HOT_RUNS + (int)engine;
    case XD_CS_BUDGET:
    case XD_CS_BLOCKED:
        gpu->attention |= XD_ATTENTION_RUN;
        break;
    default:
        break;
    }
    if (gpu->memory.stores != gpu->stores_seen)
        gpu->attention |= XD_ATTENTION_RUN; /* others may wait for what it stored */
    return XD_HOT_DONE;
}

static int write_one(xd_gpu *gpu, uint32_t offset, uint32_t value)
{
    if (is_interrupt(offset)) {
        xd_interrupt_write(gpu, offset, value);
        return XD_HOT_DONE;
    }
    if (is_tlb(offset)) {
        invalidate(gpu, offset);
        return XD_HOT_DONE;
    }
    uint32_t engine = engine_of(gpu, offset), from_base = offset - gpu->kinds[engine].base;
    if (from_base == RING_ELSP && xd_execlists_write(gpu, engine, value))
        return run_inside(gpu, engine);
    if (from_base == RING_CSB_PTR) {
        uint32_t mask = value >> 16, old = xd_register(gpu, offset);
        xd_register_store(gpu, offset, (old & ~mask & 0xffff) | (value & mask));
        if (mask & CSB_WRITE_MASK)
            xd_execlists_set_csb(gpu, engine, value & CSB_WRITE_MASK);
    }
    return XD_HOT_DONE;
}

/* Returns whether the access is of whole registers. */
static bool is_whole(uint64_t offset, uint32_t size)
{
    return (size == 4 || size == 8) && offset % 4 == 0;
}

static bool touches(const xd_gpu *gpu, uint64_t offset, uint32_t size)
{
    if (offset + size > XD_REGISTERS_SIZE)
        return false;
    for (uint32_t at = (uint32_t)offset & ~3u; at < offset + size; at += 4)
        if (is_hot(gpu, at))
            return true;
    return false;
}

int xd_hot_read(xd_gpu *gpu, uint64_t offset, uint32_t size, uint64_t *value)
{
    if (!touches(gpu, offset, size))
        return XD_HOT_OTHER;
    uint64_t read = 0;
    for (uint32_t i = 0; i < size; i++) { /* the registers of some bytes each, at most three */
        uint32_t at = (uint32_t)offset + i;
        if (i && at % 4)
            continue;
        uint64_t one = read_one(gpu, at & ~3u) >> 8 * (at % 4);
        read |= one << 8 * i;
    }
    *value = size == 8 ? read : read & ((UINT64_C(1) << 8 * size) - 1);
    return XD_HOT_DONE;
}

int xd_hot_write(xd_gpu *gpu, uint64_t offset, uint32_t size, uint64_t value)
{
    if (!touches(gpu, offset, size))
        return XD_HOT_OTHER;
    int result = XD_HOT_DONE;
    for (uint32_t at = 0; is_whole(offset, size) && at < size; at += 4) {
        uint32_t one = (uint32_t)offset + at;
        uint32_t part = (uint32_t)(value >> 8 * at);
        if (is_hot(gpu, one)) {
            int done = write_one(gpu, one, part);
            result = done >= XD_HOT_RUNS ? done : result;
        } else {
            xd_cs_register_store(gpu, 0, one, part, UINT32_MAX);
        }
    }
    return result;
}
