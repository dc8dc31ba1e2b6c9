#include "execlists.h"

#include "cs.h"

#include <string.h>

enum {
    IDLE_TO_ACTIVE = 1 << 0,
    PREEMPTED = 1 << 1,
    ELEMENT_SWITCH = 1 << 2,
    ACTIVE_TO_IDLE = 1 << 3,
    COMPLETE = 1 << 4,
    LITE_RESTORE = 1 << 15
};
enum { CSB_ENTRIES = 6, CSB_RESET = 5, HWSP_CSB = 0x40, HWSP_CSB_WRITE = 0x7c, IMAGE_TAIL = XD_FRAME_SIZE + 4 * 0x07 };
/* Of EXECLIST_STATUS, the low dword. */
enum { STATUS_VALID = 1 << 4, STATUS_ELEMENT_SHIFT = 14 };

static void add_event(xd_engine_state *state, uint32_t event, uint32_t context)
{
    if (state->event_count < XD_MOST_EVENTS)
        state->events[state->event_count++] = (xd_element){event, context};
}

static bool is_valid(xd_element element)
{
    return element.low & ELEMENT_VALID;
}

void xd_execlists_show(xd_gpu *gpu, uint32_t engine)
{
    const xd_engine_state *state = xd_state_of(gpu, engine);
    uint32_t base = gpu->kinds[engine].base;
    bool idle = state->phase == XD_PHASE_IDLE;
    uint32_t low = idle ? 0 : STATUS_VALID | (state->active_index + 1) << STATUS_ELEMENT_SHIFT;
    xd_register_store(gpu, base + RING_EXECLIST_STATUS, low);
    xd_register_store(gpu, base + RING_EXECLIST_STATUS + 4, idle ? 0 : state->active[state->active_index].high);
}

/*
 * What follows changes a copy of the engine's state, which then takes the place of the state at once. The registers that
 * show it are written afterwards, and again by a successor.
 */

/* The element `index` of the active list is to be executed. */
static void load(xd_engine_state *state, uint32_t index)
{
    state->active_index = index;
    state->phase = XD_PHASE_RESTORE;
    state->level = 0;
    state->cursor = state->waiting = state->blitting = 0;
    xd_blit_reset(&state->blit);
}

static void activate(xd_engine_state *state, const xd_element *list)
{
    memcpy(state->active, list, sizeof(state->active));
    add_event(state, IDLE_TO_ACTIVE, list[0].high);
    load(state, 0);
}

/* Whether the engine executes the last element of its list, and that is this context. */
static bool is_last_and_running(const xd_engine_state *state, xd_element element)
{
    bool last = state->active_index == 1 || !is_valid(state->active[1]);
    return last && state->active[state->active_index].low >> XD_FRAME_SHIFT == element.low >> XD_FRAME_SHIFT;
}

/*
 * The list begins with the context that runs, whose ring has got longer. A context that has come to its end and is about
 * to be saved runs on. One that is still to be restored will find its new tail in its image.
 */
static void restore_lightly(xd_engine_state *state, const xd_element *list)
{
    memcpy(state->active, list, sizeof(state->active));
    state->active_index = 0;
    add_event(state, LITE_RESTORE | PREEMPTED, list[0].high);
    if (state->phase == XD_PHASE_SAVE)
        state->phase = XD_PHASE_RUN;
    state->needs_tail = 1;
}

static void submit(xd_gpu *gpu, uint32_t engine, xd_engine_state *state, const xd_element *list)
{
    bool enabled = xd_register(gpu, gpu->kinds[engine].base + RING_MODE) & EXECLIST_ENABLE;
    gpu->counts.lists++;
    if (!enabled || !is_valid(list[0])) {
        gpu->counts.ignored++;
        return;
    }
    state->needs_sync = 1;
    if (state->phase == XD_PHASE_IDLE) {
        activate(state, list);
    } else if (!state->has_pending && is_last_and_running(state, list[0])) {
        restore_lightly(state, list);
    } else {
        gpu->counts.ignored += state->has_pending;
        memcpy(state->pending, list, sizeof(state->pending));
        state->has_pending = 1;
    }
}

int xd_execlists_write(xd_gpu *gpu, uint32_t engine, uint32_t value)
{
    xd_engine_state *state = xd_state_copy(gpu, engine);
    state->elsp[state->elsp_count++ & 3] = value;
    bool submits = state->elsp_count >= 4;
    if (submits) {
        state->elsp_count = 0;
        const uint32_t *written = state->elsp;
        xd_element list[2] = {{written[3], written[2]}, {written[1], written[0]}};
        submit(gpu, engine, state, list);
    }
    xd_state_flip(gpu, engine);
    if (submits)
        xd_execlists_show(gpu, engine);
    return submits;
}

void xd_execlists_reset(xd_gpu *gpu, uint32_t engine)
{
    static const uint32_t cleared[] = {RING_TAIL, RING_HEAD, RING_START, RING_CTL, RING_ACTHD, RING_ACTHD_UDW,
                                       RING_EXECLIST_STATUS, RING_EXECLIST_STATUS + 4};
    uint32_t base = gpu->kinds[engine].base;
    memset(xd_state_of(gpu, engine), 0, sizeof(xd_engine_state));
    memset(&gpu->engines[engine].space, 0, sizeof(xd_gpu_space));
    gpu->engines[engine].window_count = gpu->engines[engine].without_root = 0;
    for (size_t i = 0; i < sizeof(cleared) / sizeof(*cleared); i++)
        xd_register_store(gpu, base + cleared[i], 0);
    xd_execlists_set_csb(gpu, engine, CSB_RESET);
    xd_register_store(gpu, base + RING_CSB_PTR, CSB_RESET << 8 | CSB_RESET);
}

int xd_execlists_idle(const xd_gpu *gpu, uint32_t engine)
{
    const xd_engine_state *state = xd_state_of(gpu, engine);
    return state->phase == XD_PHASE_IDLE && !state->event_count;
}

void xd_execlists_set_csb(xd_gpu *gpu, uint32_t engine, uint32_t index)
{
    xd_state_of(gpu, engine)->csb = index < CSB_ENTRIES ? index : CSB_RESET;
}

/* In this order: the entry, the number of the last entry, the interrupt. */
int xd_execlists_tell(struct xd_cs *cs)
{
    xd_engine_state *state = cs->state;
    uint32_t base = cs->kind->base;
    uint32_t index = (state->csb + 1) % CSB_ENTRIES;
    xd_element event = state->events[0];
    uint64_t page = xd_cs_status_page(cs);
    uint64_t entry = (uint64_t)event.high << 32 | event.low;
    int reason = xd_cs_store_status(cs, page + HWSP_CSB + 8 * index, entry, 8);
    if (!reason)
        reason = xd_cs_store_status(cs, page + HWSP_CSB_WRITE, index, 4);
    if (reason)
        return reason;
    xd_register_store64(cs->gpu, base + RING_CSB + 8 * index, entry);
    xd_register_store(cs->gpu, base + RING_CSB_PTR,
                      (xd_register(cs->gpu, base + RING_CSB_PTR) & ~7u) | index);
    xd_interrupt_event(cs->gpu, cs->number, XD_EVENT_CONTEXT_SWITCH);
    state = xd_state_copy(cs->gpu, cs->number); /* whoever dies before the flip has told this, and tells it again */
    state->csb = index;
    state->event_count--;
    memmove(state->events, state->events + 1, state->event_count * sizeof(*state->events));
    xd_state_flip(cs->gpu, cs->number);
    cs->state = state;
    cs->gpu->counts.events++;
    return XD_CS_IDLE;
}

void xd_execlists_ended(struct xd_cs *cs)
{
    xd_engine_state *state = xd_state_copy(cs->gpu, cs->number);
    uint32_t context = state->active[state->active_index].high;
    if (state->active_index == 0 && is_valid(state->active[1])) {
        add_event(state, ELEMENT_SWITCH | COMPLETE, context);
        state->needs_sync = 1;
        load(state, 1);
    } else {
        add_event(state, ACTIVE_TO_IDLE | COMPLETE, context);
        state->phase = XD_PHASE_IDLE;
        if (state->has_pending) {
            state->has_pending = 0;
            activate(state, state->pending);
        }
    }
    xd_state_flip(cs->gpu, cs->number);
    cs->state = state;
    xd_execlists_show(cs->gpu, cs->number);
}
