#include "mi_flow.h"

enum { NOOP_SETS_ID = 1 << 22, ID_MASK = 0x3fffff };
enum { START_PPGTT = 1 << 8, START_PREDICATED = 1 << 15, START_SECOND_LEVEL = 1 << 22, USE_GGTT = 1 << 22 };
enum { COMPARE_SHIFT = 12, COMPARE_SEMAPHORE = 1 << 21 };
/* MI_SET_PREDICATE: when commands are passed over. */
enum {
    PREDICATE_OFF = 0,
    PREDICATE_2_CLEAR = 1,
    PREDICATE_2_SET = 2,
    PREDICATE_CLEAR = 3,
    PREDICATE_SET = 4,
    PREDICATE_ALWAYS = 15
};

int xd_mi_noop(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    (void)count;
    if (d[0] & NOOP_SETS_ID)
        xd_register_store(cs->gpu, cs->kind->base + RING_NOPID, d[0] & ID_MASK);
    return XD_CS_IDLE;
}

int xd_mi_arb_on_off(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    (void)count;
    cs->state->arbitration = d[0] & 1;
    return XD_CS_IDLE;
}

int xd_mi_batch_buffer_start(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    (void)count;
    uint32_t level = cs->state->level;
    if (d[0] & START_PREDICATED && !(xd_register(cs->gpu, PREDICATE_RESULT) & 1))
        return XD_CS_IDLE;
    bool ppgtt = xd_cs_is_user(cs) || d[0] & START_PPGTT;
    uint32_t to = level == 2 || (level == 1 && d[0] & START_SECOND_LEVEL) ? 2 : 1;
    xd_cs_jump(cs, to, xd_cs_address(d + 1), ppgtt);
    return XD_CS_IDLE;
}

int xd_mi_batch_buffer_end(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    (void)d, (void)count;
    if (cs->state->level)
        xd_cs_leave(cs);
    return XD_CS_IDLE;
}

/* It ends the batch of first level, too. */
int xd_mi_conditional_batch_buffer_end(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    (void)count;
    if (!(d[0] & COMPARE_SEMAPHORE))
        return XD_CS_IDLE;
    if (xd_cs_is_denied(cs, d[0] & USE_GGTT))
        return XD_CS_IDLE;
    const xd_gpu_space *space = xd_cs_space(cs, d[0] & USE_GGTT);
    if (!space)
        return XD_CS_SYNC;
    uint64_t value;
    int reason = xd_cs_load(cs, space, xd_cs_address(d + 2), 4, &value);
    while (!reason && value <= d[1] && cs->state->level)
        xd_cs_leave(cs);
    return reason;
}

/* Whoever waits for a signal looks at memory, as whoever polls. So all that a signal does is to have them look. */
int xd_mi_semaphore_signal(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    (void)d, (void)count;
    cs->gpu->memory.stores++;
    return XD_CS_IDLE;
}

static bool compares(uint32_t how, uint64_t memory, uint64_t data)
{
    switch (how) {
    case 0:
        return memory > data;
    case 1:
        return memory >= data;
    case 2:
        return memory < data;
    case 3:
        return memory <= data;
    case 4:
        return memory == data;
    case 5:
        return memory != data;
    default:
        return true;
    }
}

int xd_mi_semaphore_wait(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    (void)count;
    if (xd_cs_is_denied(cs, d[0] & USE_GGTT))
        return XD_CS_IDLE;
    const xd_gpu_space *space = xd_cs_space(cs, d[0] & USE_GGTT);
    if (!space)
        return XD_CS_SYNC;
    uint64_t value;
    int reason = xd_cs_load(cs, space, xd_cs_address(d + 2), 4, &value);
    if (reason || compares(d[0] >> COMPARE_SHIFT & 7, value, d[1]))
        return reason;
    if (!cs->state->waiting) {
        cs->state->waiting = 1;
        xd_interrupt_event(cs->gpu, cs->number, XD_EVENT_SEMAPHORE);
    }
    return XD_CS_BLOCKED;
}

int xd_mi_set_predicate(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    (void)count;
    cs->state->predicate = d[0] & 0xf;
    return XD_CS_IDLE;
}

bool xd_mi_is_predicated(const xd_cs *cs, uint32_t does)
{
    if (!cs->state->predicate || does == XD_DO_SET_PREDICATE || does == XD_DO_BATCH_BUFFER_END)
        return false;
    bool result = xd_register(cs->gpu, PREDICATE_RESULT) & 1, result_2 = xd_register(cs->gpu, PREDICATE_RESULT_2) & 1;
    switch (cs->state->predicate) {
    case PREDICATE_2_CLEAR:
        return !result_2;
    case PREDICATE_2_SET:
        return result_2;
    case PREDICATE_CLEAR:
        return !result;
    case PREDICATE_SET:
        return result;
    default:
        return cs->state->predicate == PREDICATE_ALWAYS;
    }
}

int xd_mi_predicate(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    (void)count;
    uint32_t load = d[0] >> 6 & 3, combine = d[0] >> 3 & 3, compare = d[0] & 3;
    uint64_t left = xd_register64(cs->gpu, PREDICATE_SRC0), right = xd_register64(cs->gpu, PREDICATE_SRC1);
    bool compared = compare == 0 || (compare == 2 && left == right) ||
                    (compare == 3 && left - right == xd_register64(cs->gpu, PREDICATE_DATA));
    bool before = xd_register(cs->gpu, PREDICATE_RESULT) & 1;
    bool combined = combine == 0   ? compared
                    : combine == 1 ? before && compared
                    : combine == 2 ? before || compared
                                   : before != compared;
    if (load >= 2) {
        bool result = load == 2 ? combined : !combined;
        if (result != before)
            xd_cs_progress(cs);
        xd_register_store(cs->gpu, PREDICATE_RESULT, result);
    }
    return XD_CS_IDLE;
}
