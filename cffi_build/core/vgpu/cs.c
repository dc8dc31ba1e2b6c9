/* What the parts of the command streamer share: accesses to memory, where an engine executes, and its errors. */
#include "cs.h"

const xd_gpu_space xd_ggtt = {.level = 0};

/* Accesses to memory */

int xd_cs_reason(const xd_gpu_memory *memory, int result)
{
    return result == XD_GM_AGAIN ? memory->stale ? XD_CS_SYNC : XD_CS_NEED : XD_CS_DIRECTORY;
}

int xd_cs_load(xd_cs *cs, const xd_gpu_space *space, uint64_t address, uint32_t size, uint64_t *value)
{
    *value = 0;
    int result = xd_gm_read(&cs->gpu->memory, space, address & ~(uint64_t)(size - 1), value, size);
    return result == XD_GM_AGAIN ? xd_cs_reason(&cs->gpu->memory, result) : XD_CS_IDLE;
}

int xd_cs_store(xd_cs *cs, const xd_gpu_space *space, uint64_t address, uint64_t value, uint32_t size)
{
    xd_gpu_memory *memory = &cs->gpu->memory;
    address &= ~(uint64_t)(size - 1);
    int result = xd_gm_write(memory, space, address, &value, size);
    if (result == XD_GM_TRACKED)
        result = xd_gm_write_table(memory, space, address, value, size);
    if (result == XD_GM_AGAIN)
        return xd_cs_reason(memory, result);
    if (result == XD_GM_DIRECTORY)
        cs->after = XD_CS_DIRECTORY;
    xd_cs_progress(cs);
    if (result == XD_GM_DONE && memory->frame == cs->engine->window_frame)
        cs->engine->window_count = 0; /* it changed its own commands */
    return XD_CS_IDLE;
}

int xd_cs_store_status(xd_cs *cs, uint64_t address, uint64_t value, uint32_t size)
{
    int reason = xd_cs_store(cs, &xd_ggtt, address, value, size);
    if (cs->after) {
        xd_gpu_memory *memory = &cs->gpu->memory;
        xd_set_frame_unread(memory->shadow, memory->table.gpa >> XD_FRAME_SHIFT);
        cs->after = XD_CS_IDLE;
    }
    return reason;
}

uint64_t xd_cs_context(const xd_cs *cs)
{
    return cs->state->active[cs->state->active_index].low & ~(uint32_t)(XD_FRAME_SIZE - 1);
}

uint64_t xd_cs_status_page(const xd_cs *cs)
{
    return xd_register(cs->gpu, cs->kind->base + RING_HWS_PGA) & ~(uint32_t)(XD_FRAME_SIZE - 1);
}

/* Where an engine executes */

void xd_cs_set_ip(xd_cs *cs, uint64_t ip)
{
    xd_engine_state *state = cs->state;
    state->levels[state->level].ip = ip;
    if (state->level == 0)
        xd_register_store(cs->gpu, cs->kind->base + RING_HEAD, (uint32_t)ip);
}

void xd_cs_jump(xd_cs *cs, uint32_t level, uint64_t address, bool ppgtt)
{
    xd_engine_state *state = cs->state;
    uint64_t target = address & ((UINT64_C(1) << 48) - 1) & ~UINT64_C(3);
    if (level > state->level) {
        xd_cs_set_ip(cs, cs->next);
    } else if (target < cs->next) {
        uint64_t progress = state->progress;
        cs->spins = state->jumped_at == progress;
        state->jumped_at = progress;
    }
    state->levels[level] = (xd_cs_level){.ip = target, .ppgtt = ppgtt};
    state->level = level;
    cs->jumped = true;
    cs->engine->window_count = 0;
}

void xd_cs_leave(xd_cs *cs)
{
    if (cs->state->level)
        cs->state->level--;
    cs->jumped = true;
    cs->engine->window_count = 0;
}

int xd_cs_error(xd_cs *cs)
{
    uint32_t base = cs->kind->base;
    cs->gpu->counts.errors++;
    xd_register_store(cs->gpu, base + RING_MI_MODE, xd_register(cs->gpu, base + RING_MI_MODE) | STOP_RING);
    if (!(xd_register(cs->gpu, base + RING_EMR) & 1)) {
        xd_register_store(cs->gpu, base + RING_EIR, xd_register(cs->gpu, base + RING_EIR) | 1);
        xd_interrupt_event(cs->gpu, cs->number, XD_EVENT_ERROR);
    }
    return XD_CS_ERROR;
}
