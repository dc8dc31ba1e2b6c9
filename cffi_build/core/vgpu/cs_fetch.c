#include "cs_fetch.h"

enum { PREFETCH = 128 };

/* Returns how many bytes from `ip` on are in one piece: to the end of the page, and of the ring. *address: where. */
static uint32_t piece_at(const xd_cs *cs, uint64_t ip, uint64_t *address)
{
    *address = ip;
    uint32_t most = XD_FRAME_SIZE;
    if (cs->state->level == 0) {
        uint32_t offset = (uint32_t)ip & (xd_cs_ring_size(cs) - 1);
        *address = (xd_register(cs->gpu, cs->kind->base + RING_START) & ~(uint32_t)(XD_FRAME_SIZE - 1)) + offset;
        most = xd_cs_ring_size(cs) - offset;
    }
    uint32_t page = XD_FRAME_SIZE - (uint32_t)(*address & (XD_FRAME_SIZE - 1));
    return page < most ? page : most;
}

/* Reads at least `count` dwords from `ip` on, at most XD_WINDOW, to the window. Returns XD_CS_IDLE or a reason. */
static int fill_window(xd_cs *cs, uint64_t ip, uint32_t count)
{
    xd_engine *engine = cs->engine;
    const xd_gpu_space *space = xd_cs_is_user(cs) ? xd_cs_space(cs, false) : &xd_ggtt;
    if (!space)
        return XD_CS_SYNC;
    uint32_t wanted = 4 * (count < PREFETCH ? PREFETCH : count);
    uint32_t done = 0;
    engine->window_count = 0;
    while (done < 4 * count) {
        uint64_t address;
        uint32_t piece = piece_at(cs, ip + done, &address);
        uint32_t size = piece < wanted - done ? piece : wanted - done;
        int result = xd_gm_read(&cs->gpu->memory, space, address, (char *)engine->window + done, size);
        if (result == XD_GM_AGAIN)
            return xd_cs_reason(&cs->gpu->memory, result);
        if (!done)
            engine->window_frame = result == XD_GM_DONE ? cs->gpu->memory.frame : XD_NO_FRAME;
        done += size;
    }
    engine->window_ip = ip;
    engine->window_level = cs->state->level;
    engine->window_count = done / 4;
    return XD_CS_IDLE;
}

int xd_cs_fetch(xd_cs *cs, uint64_t ip, uint32_t count, const uint32_t **at)
{
    xd_engine *engine = cs->engine;
    uint64_t offset = (ip - engine->window_ip) / 4;
    if (engine->window_level != cs->state->level || offset >= engine->window_count ||
        count > engine->window_count - offset) {
        int reason = fill_window(cs, ip, count);
        if (reason)
            return reason;
        offset = 0;
    }
    *at = engine->window + offset;
    return XD_CS_IDLE;
}
