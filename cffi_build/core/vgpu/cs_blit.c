#include "cs_blit.h"

#include "blit.h"

enum { BCS_SWCTRL = 0x22200 };

int xd_cs_blit(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    xd_engine_state *state = cs->state;
    xd_gpu_memory *memory = &cs->gpu->memory;
    const xd_gpu_space *space = xd_cs_space(cs, state->level && !xd_cs_is_user(cs));
    if (!space)
        return XD_CS_SYNC;
    if (!state->blitting) {
        int what = xd_blit_begin(&state->blit, d, count, xd_register(cs->gpu, BCS_SWCTRL));
        if (what != XD_BLIT_RUN)
            return what == XD_BLIT_NOTHING ? XD_CS_IDLE : xd_cs_error(cs);
        state->blitting = 1;
    }
    uint8_t *bounce = cs->gpu->bounce + XD_FRAME_SIZE * (uint64_t)cs->number;
    int result = xd_blit_run(&state->blit, memory, space, bounce, &cs->budget);
    xd_cs_progress(cs);
    if (result == XD_BLIT_BUDGET)
        return XD_CS_BUDGET;
    if (result != XD_GM_DONE)
        return xd_cs_reason(memory, result);
    cs->engine->window_count = 0; /* it may have changed its own commands */
    return XD_CS_IDLE;
}
