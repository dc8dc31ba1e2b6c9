#include "mi_store.h"

#include <string.h>

enum { USE_GGTT = 1 << 22, STORE_INDEX = 1 << 21, STORE_QWORD = 1 << 21, COPY_TO_GGTT = 1 << 21 };
enum { NOTIFY = 1 << 8, TLB_INVALIDATE = 1 << 18, POST_SYNC_SHIFT = 14 };
enum { FLUSH_ADDRESS_GGTT = 1 << 2, PIPE_CONTROL_TO_REGISTER = 1 << 23, PIPE_CONTROL_GGTT = 1 << 24 };
enum { POST_SYNC_NONE = 0, POST_SYNC_IMMEDIATE = 1, POST_SYNC_DEPTH = 2, POST_SYNC_TIMESTAMP = 3 };
enum { REPORT_SIZE = 256, HEAD_INDEX = 4 };

/*
 * Ends one of several stores of a command. Returns XD_CS_IDLE if the next one can be done; else a reason, and the command
 * goes on behind this store.
 */
static int next_store(xd_cs *cs, uint32_t done, bool last)
{
    cs->state->cursor = done;
    return last ? XD_CS_IDLE : cs->after;
}

int xd_mi_store_data_imm(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    if (xd_cs_is_denied(cs, d[0] & USE_GGTT))
        return XD_CS_IDLE;
    const xd_gpu_space *space = xd_cs_space(cs, d[0] & USE_GGTT);
    if (!space)
        return XD_CS_SYNC;
    uint32_t words = d[0] & STORE_QWORD ? 2 : 1, stores = (count - 3) / words;
    uint64_t address = xd_cs_address(d + 1) & ~(uint64_t)3;
    for (uint32_t i = cs->state->cursor; i < stores; i++) {
        const uint32_t *data = d + 3 + words * i;
        uint64_t value = words == 2 ? xd_cs_address(data) : *data;
        int reason = xd_cs_store(cs, space, address + 4 * words * (uint64_t)i, value, 4 * words);
        if (reason || (reason = next_store(cs, i + 1, i + 1 == stores)))
            return reason;
    }
    return XD_CS_IDLE;
}

/* Whether the offset is one in the context's own status page, and not in that of the engine. */
static uint64_t page_of_index(const xd_cs *cs, bool of_engine)
{
    return of_engine ? xd_cs_status_page(cs) : xd_cs_context(cs);
}

int xd_mi_store_data_index(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    if (xd_cs_is_denied(cs, true))
        return XD_CS_IDLE;
    uint64_t page = page_of_index(cs, !(d[0] & STORE_INDEX));
    uint32_t offset = d[1] & 0xffc;
    if (count > 3)
        return xd_cs_store(cs, &xd_ggtt, page + offset, xd_cs_address(d + 2), 8);
    return xd_cs_store(cs, &xd_ggtt, page + offset, d[2], 4);
}

int xd_mi_report_head(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    (void)d, (void)count;
    uint32_t head = xd_register(cs->gpu, cs->kind->base + RING_HEAD);
    return xd_cs_store(cs, &xd_ggtt, xd_cs_context(cs) + 4 * HEAD_INDEX, head, 4);
}

int xd_mi_update_gtt(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    uint64_t first = d[1] >> XD_FRAME_SHIFT;
    for (uint32_t i = 0; 2 * i + 3 < count; i++)
        if (first + i < cs->gpu->memory.ggtt_entries)
            __atomic_store_n(&cs->gpu->ggtt[first + i], xd_cs_address(d + 2 + 2 * i), __ATOMIC_RELAXED);
    xd_gm_drop(&cs->gpu->memory);
    xd_cs_progress(cs);
    return XD_CS_IDLE;
}

/* What a flush stores, and where. */
typedef struct post_sync {
    uint32_t what;
    bool ggtt;
    bool index;
    uint64_t address;
    uint64_t immediate;
    uint32_t size;
} post_sync;

static int store_post_sync(xd_cs *cs, const post_sync *one)
{
    if (one->what == POST_SYNC_NONE || xd_cs_is_denied(cs, one->ggtt || one->index))
        return XD_CS_IDLE;
    const xd_gpu_space *space = one->index ? &xd_ggtt : xd_cs_space(cs, one->ggtt);
    if (!space)
        return XD_CS_SYNC;
    uint64_t address = one->index ? page_of_index(cs, one->ggtt) + (one->address & 0xff8) : one->address;
    if (one->index && one->size == 4)
        address += one->address & 4;
    uint64_t value = one->what == POST_SYNC_IMMEDIATE ? one->immediate
                     : one->what == POST_SYNC_TIMESTAMP ? xd_ticks(cs->gpu)
                                                        : 0;
    return xd_cs_store(cs, space, address, value, one->what == POST_SYNC_IMMEDIATE ? one->size : 8);
}

static void end_flush(xd_cs *cs, bool invalidates, bool notifies)
{
    if (invalidates) {
        xd_gm_drop(&cs->gpu->memory);
        cs->state->needs_sync = 1;
    }
    if (notifies)
        xd_interrupt_event(cs->gpu, cs->number, XD_EVENT_FLUSH);
}

int xd_mi_flush_dw(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    post_sync one = {.what = d[0] >> POST_SYNC_SHIFT & 3};
    if (one.what == POST_SYNC_DEPTH || count < 4)
        one.what = POST_SYNC_NONE;
    if (one.what != POST_SYNC_NONE) {
        one.ggtt = d[1] & FLUSH_ADDRESS_GGTT;
        one.index = d[0] & STORE_INDEX;
        one.address = xd_cs_address(d + 1) & ~(uint64_t)7;
        one.size = count > 4 ? 8 : 4;
        one.immediate = count > 4 ? xd_cs_address(d + 3) : d[3];
    }
    int reason = store_post_sync(cs, &one);
    if (!reason)
        end_flush(cs, d[0] & TLB_INVALIDATE, d[0] & NOTIFY);
    return reason;
}

int xd_mi_pipe_control(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    post_sync one = {.what = d[1] >> POST_SYNC_SHIFT & 3, .size = 8};
    if (count < 6 || d[1] & PIPE_CONTROL_TO_REGISTER)
        one.what = POST_SYNC_NONE;
    if (one.what != POST_SYNC_NONE) {
        one.ggtt = d[1] & PIPE_CONTROL_GGTT;
        one.index = d[1] & STORE_INDEX;
        one.address = xd_cs_address(d + 2) & ~(uint64_t)3;
        one.immediate = xd_cs_address(d + 4);
    }
    int reason = store_post_sync(cs, &one);
    if (!reason)
        end_flush(cs, d[1] & TLB_INVALIDATE, d[1] & NOTIFY);
    return reason;
}

/* There are no counters: a report has its id, the time, and zeros. */
int xd_mi_report_perf_count(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    if (count < 4)
        return XD_CS_IDLE;
    if (xd_cs_is_denied(cs, d[1] & 1))
        return XD_CS_IDLE;
    const xd_gpu_space *space = xd_cs_space(cs, d[1] & 1);
    if (!space)
        return XD_CS_SYNC;
    uint64_t address = xd_cs_address(d + 1) & ~(uint64_t)0x3f;
    for (uint32_t i = cs->state->cursor; i < REPORT_SIZE / 8; i++) {
        uint64_t value = i ? 0 : (uint64_t)(uint32_t)xd_ticks(cs->gpu) << 32 | d[3];
        int reason = xd_cs_store(cs, space, address + 8 * i, value, 8);
        if (reason || (reason = next_store(cs, i + 1, i + 1 == REPORT_SIZE / 8)))
            return reason;
    }
    return XD_CS_IDLE;
}

int xd_mi_copy_mem_mem(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    (void)count;
    if (xd_cs_is_denied(cs, d[0] & (USE_GGTT | COPY_TO_GGTT)))
        return XD_CS_IDLE;
    const xd_gpu_space *from = xd_cs_space(cs, d[0] & USE_GGTT), *to = xd_cs_space(cs, d[0] & COPY_TO_GGTT);
    if (!from || !to)
        return XD_CS_SYNC;
    uint64_t value;
    int reason = xd_cs_load(cs, from, xd_cs_address(d + 3), 4, &value);
    return reason ? reason : xd_cs_store(cs, to, xd_cs_address(d + 1), value, 4);
}

/* MI_ATOMIC */

enum { ATOMIC_RETURNS = 1 << 16, ATOMIC_INLINE = 1 << 18, ATOMIC_SIZE_SHIFT = 19, ATOMIC_OPERATION_SHIFT = 8 };
enum { ATOMIC_MOST_TRIES = 64 };
/* Operations, without the bits that say the size again. */
enum {
    ATOMIC_AND = 0x01,
    ATOMIC_OR = 0x02,
    ATOMIC_XOR = 0x03,
    ATOMIC_MOVE = 0x04,
    ATOMIC_INC = 0x05,
    ATOMIC_DEC = 0x06,
    ATOMIC_ADD = 0x07,
    ATOMIC_SUB = 0x08,
    ATOMIC_REVERSE_SUB = 0x09,
    ATOMIC_IMAX = 0x0a,
    ATOMIC_IMIN = 0x0b,
    ATOMIC_UMAX = 0x0c,
    ATOMIC_UMIN = 0x0d,
    ATOMIC_COMPARE_WRITE = 0x0e
};

static int64_t as_signed(uint64_t value, uint32_t size)
{
    return size == 4 ? (int32_t)value : (int64_t)value;
}

/* Returns what an operation makes of `old`. first, second: its operands. */
static uint64_t combine(uint32_t operation, uint64_t old, uint64_t first, uint64_t second, uint32_t size)
{
    switch (operation) {
    case ATOMIC_AND:
        return old & first;
    case ATOMIC_OR:
        return old | first;
    case ATOMIC_XOR:
        return old ^ first;
    case ATOMIC_MOVE:
        return first;
    case ATOMIC_INC:
        return old + 1;
    case ATOMIC_DEC:
        return old - 1;
    case ATOMIC_ADD:
        return old + first;
    case ATOMIC_SUB:
        return old - first;
    case ATOMIC_REVERSE_SUB:
        return first - old;
    case ATOMIC_IMAX:
        return as_signed(old, size) > as_signed(first, size) ? old : first;
    case ATOMIC_IMIN:
        return as_signed(old, size) < as_signed(first, size) ? old : first;
    case ATOMIC_UMAX:
        return old > first ? old : first;
    case ATOMIC_UMIN:
        return old < first ? old : first;
    case ATOMIC_COMPARE_WRITE:
        return old == first ? second : old;
    default:
        return old;
    }
}

static uint64_t operand(const xd_cs *cs, const uint32_t *d, uint32_t which, uint32_t size)
{
    uint64_t value;
    if (d[0] & ATOMIC_INLINE)
        value = (uint64_t)d[5 + which] << 32 | d[3 + which];
    else
        value = xd_register64(cs->gpu, cs->kind->base + RING_GPR + 16 * which);
    return size == 4 ? (uint32_t)value : value;
}

/* Replaces what is in memory, unless it has changed: then *old becomes what is there, and *again true. */
static int exchange(xd_cs *cs, const xd_gpu_space *space, uint64_t address, uint64_t *old, uint64_t new,
                    uint32_t size, bool *again)
{
    uint64_t found = *old;
    int result = xd_gm_exchange(&cs->gpu->memory, space, address, *old, new, size, &found);
    if (result == XD_GM_TRACKED) /* a CPU that stores there at the same time waits for us */
        return xd_cs_store(cs, space, address, new, size);
    if (result == XD_GM_AGAIN)
        return xd_cs_reason(&cs->gpu->memory, result);
    *again = found != *old;
    *old = found;
    xd_cs_progress(cs);
    return XD_CS_IDLE;
}

int xd_mi_atomic(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    if (xd_cs_is_denied(cs, d[0] & USE_GGTT))
        return XD_CS_IDLE;
    const xd_gpu_space *space = xd_cs_space(cs, d[0] & USE_GGTT);
    if (!space)
        return XD_CS_SYNC;
    uint32_t size = 4u << (d[0] >> ATOMIC_SIZE_SHIFT & 3);
    uint32_t operation = d[0] >> ATOMIC_OPERATION_SHIFT & 0x1f;
    if (size > 8 || (d[0] & ATOMIC_INLINE && count < 11))
        return XD_CS_IDLE;
    uint64_t address = xd_cs_address(d + 1) & ~(uint64_t)(size - 1);
    uint64_t first = operand(cs, d, 0, size), second = operand(cs, d, 1, size), old;
    int reason = xd_cs_load(cs, space, address, size, &old);
    bool again = true;
    for (uint32_t tries = 0; again && !reason; tries++) {
        if (tries == ATOMIC_MOST_TRIES)
            return XD_CS_BLOCKED;
        again = false;
        uint64_t new = combine(operation, old, first, second, size);
        reason = exchange(cs, space, address, &old, size == 4 ? (uint32_t)new : new, size, &again);
    }
    if (reason)
        return reason;
    if (d[0] & ATOMIC_RETURNS) {
        xd_register_store(cs->gpu, cs->kind->base + RING_GPR + 8 * 4, (uint32_t)old);
        if (size == 8)
            xd_register_store(cs->gpu, cs->kind->base + RING_GPR + 8 * 4 + 4, (uint32_t)(old >> 32));
    }
    return XD_CS_IDLE;
}
