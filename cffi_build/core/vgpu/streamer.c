/* The loop of an engine: from the ring through batches, command by command. */
#include "streamer.h"

#include "context_image.h"
#include "cs.h"
#include "cs_blit.h"
#include "cs_fetch.h"
#include "execlists.h"
#include "mi_flow.h"
#include "mi_register.h"
#include "mi_store.h"
#include "table.h"

#include <stddef.h>
#include <string.h>

enum { ADDRESSING_SHIFT = 3, ADDRESSING_64 = 3, BUS_MASTER = 4, SYNCS_IN_VAIN = 3 };

static uint32_t ring_tail(const xd_cs *cs)
{
    return xd_register(cs->gpu, cs->kind->base + RING_TAIL) & (xd_cs_ring_size(cs) - 1) & ~7u;
}

static int do_nothing(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    (void)cs, (void)d, (void)count;
    return XD_CS_IDLE;
}

static int do_error(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    (void)d, (void)count;
    return xd_cs_error(cs);
}

static int do_user_interrupt(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    (void)d, (void)count;
    xd_interrupt_event(cs->gpu, cs->number, XD_EVENT_USER);
    return XD_CS_IDLE;
}

static const xd_cs_handler handlers[XD_DO_COUNT] = {
    [XD_DO_ERROR] = do_error,
    [XD_DO_NOTHING] = do_nothing,
    [XD_DO_SKIP] = do_nothing,
    [XD_DO_NOOP] = xd_mi_noop,
    [XD_DO_SET_PREDICATE] = xd_mi_set_predicate,
    [XD_DO_USER_INTERRUPT] = do_user_interrupt,
    [XD_DO_ARB_CHECK] = do_nothing,
    [XD_DO_REPORT_HEAD] = xd_mi_report_head,
    [XD_DO_ARB_ON_OFF] = xd_mi_arb_on_off,
    [XD_DO_BATCH_BUFFER_END] = xd_mi_batch_buffer_end,
    [XD_DO_PREDICATE] = xd_mi_predicate,
    [XD_DO_MATH] = xd_mi_math,
    [XD_DO_SEMAPHORE_SIGNAL] = xd_mi_semaphore_signal,
    [XD_DO_SEMAPHORE_WAIT] = xd_mi_semaphore_wait,
    [XD_DO_STORE_DATA_IMM] = xd_mi_store_data_imm,
    [XD_DO_STORE_DATA_INDEX] = xd_mi_store_data_index,
    [XD_DO_LOAD_REGISTER_IMM] = xd_mi_load_register_imm,
    [XD_DO_UPDATE_GTT] = xd_mi_update_gtt,
    [XD_DO_STORE_REGISTER_MEM] = xd_mi_store_register_mem,
    [XD_DO_FLUSH_DW] = xd_mi_flush_dw,
    [XD_DO_REPORT_PERF_COUNT] = xd_mi_report_perf_count,
    [XD_DO_LOAD_REGISTER_MEM] = xd_mi_load_register_mem,
    [XD_DO_LOAD_REGISTER_REG] = xd_mi_load_register_reg,
    [XD_DO_COPY_MEM_MEM] = xd_mi_copy_mem_mem,
    [XD_DO_ATOMIC] = xd_mi_atomic,
    [XD_DO_BATCH_BUFFER_START] = xd_mi_batch_buffer_start,
    [XD_DO_CONDITIONAL_BATCH_BUFFER_END] = xd_mi_conditional_batch_buffer_end,
    [XD_DO_PIPE_CONTROL] = xd_mi_pipe_control,
    [XD_DO_BLIT] = xd_cs_blit,
};

static void spend(xd_cs *cs, uint64_t cost)
{
    cs->budget -= cost < cs->budget ? cost : cs->budget;
}

/* Commands whose handlers look at more than the header: their dwords must be in the window. */
static bool needs_dwords(const xd_command *command)
{
    return command->does > XD_DO_SKIP;
}

/* Executes the command at `ip`. Returns XD_CS_IDLE or a reason. */
static int execute(xd_cs *cs, uint64_t ip, uint32_t available)
{
    const uint32_t *d;
    int reason = xd_cs_fetch(cs, ip, 1, &d);
    if (reason)
        return reason;
    uint32_t header = *d;
    const xd_command *command = xd_command_of(cs->kind->commands, header);
    uint32_t count = xd_command_dwords(command, header);
    xd_register_store(cs->gpu, cs->kind->base + RING_IPEHR, header);
    if (command->does == XD_DO_ERROR || count < command->least || (needs_dwords(command) && count > XD_WINDOW))
        return xd_cs_error(cs);
    if (count > available)
        return XD_CS_BLOCKED; /* the rest of it is to come */
    uint32_t does = command->does;
    if ((command->flags & XD_COMMAND_PRIVILEGED && xd_cs_is_user(cs)) || xd_mi_is_predicated(cs, does))
        does = XD_DO_NOTHING;
    if (needs_dwords(command) && count > 1) {
        if ((reason = xd_cs_fetch(cs, ip, count, &d)))
            return reason;
        spend(cs, XD_CS_DWORD_COST * (count - 1));
    }
    cs->next = ip + 4 * (uint64_t)count;
    cs->jumped = false;
    reason = handlers[does](cs, d, count);
    if (reason)
        return reason;
    cs->gpu->counts.commands++;
    cs->engine->syncs = cs->engine->space.is_final = 0;
    cs->state->cursor = 0;
    cs->state->waiting = cs->state->blitting = 0;
    if (cs->jumped)
        return XD_CS_IDLE;
    xd_cs_set_ip(cs, cs->state->level ? cs->next : cs->next & (xd_cs_ring_size(cs) - 1));
    return XD_CS_IDLE;
}

/* A command in the ring, or the end of it. */
static int run_ring(xd_cs *cs)
{
    uint32_t size = xd_cs_ring_size(cs), tail = ring_tail(cs), base = cs->kind->base;
    uint32_t head = (uint32_t)cs->state->levels[0].ip & (size - 1) & ~3u;
    if (head == tail || !(xd_register(cs->gpu, base + RING_CTL) & 1)) {
        cs->state->phase = XD_PHASE_SAVE;
        return XD_CS_IDLE;
    }
    return execute(cs, head, ((tail - head) & (size - 1)) / 4);
}

static int run_batch(xd_cs *cs)
{
    const xd_cs_level *level = &cs->state->levels[cs->state->level];
    if (level->end && level->ip >= level->end) {
        xd_cs_leave(cs);
        return XD_CS_IDLE;
    }
    uint64_t ip = level->ip;
    int reason = execute(cs, ip, UINT32_MAX);
    if (!reason && cs->gpu->memory.fault.valid && !cs->jumped && cs->engine->window_frame == XD_NO_FRAME)
        return XD_CS_BLOCKED; /* it runs through nowhere */
    return reason;
}

static int step(xd_cs *cs)
{
    xd_engine_state *state = cs->state;
    if (state->event_count)
        return xd_execlists_tell(cs);
    if (state->needs_tail && state->phase != XD_PHASE_RESTORE)
        return xd_context_new_tail(cs);
    switch (state->phase) {
    case XD_PHASE_RESTORE:
    case XD_PHASE_REST:
        spend(cs, XD_CS_CONTEXT_COST);
        return xd_context_restore(cs);
    case XD_PHASE_SAVE:
        spend(cs, XD_CS_CONTEXT_COST);
        return xd_context_save(cs);
    case XD_PHASE_INDIRECT:
        if (!state->level) {
            state->phase = XD_PHASE_REST;
            return XD_CS_IDLE;
        }
        return run_batch(cs);
    default:
        return state->level ? run_batch(cs) : run_ring(cs);
    }
}

/* The roots of the engine's space, as they are now. */
static void find_roots(xd_cs *cs)
{
    xd_gpu_space *space = &cs->engine->space;
    uint64_t gpas[4];
    uint32_t count = (space->level = xd_cs_roots(cs->gpu, cs->number, gpas)) == 4 ? 1 : 4;
    uint32_t found = 0;
    memset(space->roots, 0, sizeof(space->roots));
    for (uint32_t i = 0; i < count; i++) {
        space->roots[i] = xd_find(cs->gpu->memory.shadow, gpas[i] >> XD_FRAME_SHIFT, space->level);
        found |= space->roots[i];
    }
    if (!found && !cs->engine->without_root)
        cs->state->needs_sync = 1;
}

/* Tells of the first fault, where a driver looks for it. */
static void record_fault(xd_cs *cs)
{
    xd_gm_fault *fault = &cs->gpu->memory.fault;
    if (!fault->valid)
        return;
    cs->gpu->counts.faults++;
    if (!(xd_register(cs->gpu, RING_FAULT) & 1)) {
        uint64_t page = fault->address >> XD_FRAME_SHIFT;
        xd_register_store(cs->gpu, FAULT_TLB_DATA0, (uint32_t)page);
        xd_register_store(cs->gpu, FAULT_TLB_DATA1, (uint32_t)(page >> 32 & 0xf) | (fault->level ? 0 : 1 << 4));
        xd_register_store(cs->gpu, RING_FAULT, 1 | cs->kind->id << 12);
    }
    fault->valid = 0;
}

/* Has the registers say where the engine is. */
static void show_place(xd_cs *cs)
{
    const xd_cs_level *level = &cs->state->levels[cs->state->level];
    uint32_t base = cs->kind->base;
    uint64_t at = level->ip;
    if (cs->state->level) {
        xd_register_store(cs->gpu, base + RING_BBADDR, (uint32_t)at | 1);
        xd_register_store(cs->gpu, base + RING_BBADDR_UDW, (uint32_t)(at >> 32));
        xd_register_store(cs->gpu, base + RING_BBSTATE, level->ppgtt << 5);
    } else {
        at += xd_register(cs->gpu, base + RING_START);
    }
    xd_register_store(cs->gpu, base + RING_ACTHD, (uint32_t)at);
    xd_register_store(cs->gpu, base + RING_ACTHD_UDW, (uint32_t)(at >> 32));
}

static bool is_stopped(const xd_cs *cs)
{
    return xd_register(cs->gpu, cs->kind->base + RING_MI_MODE) & STOP_RING;
}

static int run(xd_cs *cs)
{
    while (cs->state->phase != XD_PHASE_IDLE || cs->state->event_count) {
        if (is_stopped(cs))
            return XD_CS_IDLE;
        if (!cs->budget)
            return XD_CS_BUDGET;
        spend(cs, XD_CS_DWORD_COST);
        int reason = step(cs);
        record_fault(cs);
        if (reason == XD_CS_SYNC)
            cs->state->needs_sync = 1;
        if (reason || (reason = cs->after))
            return reason;
        if (cs->spins) {
            cs->spins = false;
            return XD_CS_BLOCKED;
        }
    }
    return XD_CS_IDLE;
}

int xd_cs_run(xd_gpu *gpu, uint32_t engine, uint64_t budget)
{
    xd_cs cs = {.gpu = gpu,
                .state = xd_state_of(gpu, engine),
                .engine = &gpu->engines[engine],
                .kind = &gpu->kinds[engine],
                .number = engine,
                .budget = budget};
    int reason = XD_CS_IDLE;
    if (cs.engine->follows) {
        reason = XD_CS_DIRECTORY;
    } else if (gpu->halted || (gpu->pci_command && !(*gpu->pci_command & BUS_MASTER))) {
        reason = XD_CS_BLOCKED;
    } else if (!xd_execlists_idle(gpu, engine)) {
        xd_gm_drop(&gpu->memory);
        cs.engine->window_count = 0;
        find_roots(&cs);
        reason = run(&cs);
        show_place(&cs);
        if (reason == XD_CS_DIRECTORY) {
            cs.engine->table = gpu->memory.table;
            cs.engine->follows = 1;
        }
    }
    cs.engine->reason = (uint32_t)reason;
    return reason;
}

uint32_t xd_cs_roots(const xd_gpu *gpu, uint32_t engine, uint64_t gpas[4])
{
    const xd_engine_state *state = xd_state_of(gpu, engine);
    uint32_t mode = state->active[state->active_index].low >> ADDRESSING_SHIFT & 3;
    uint32_t base = gpu->kinds[engine].base;
    for (uint32_t i = 0; i < 4; i++)
        gpas[i] = xd_register64(gpu, base + RING_PDP0 + 8 * i) & ~(uint64_t)(XD_FRAME_SIZE - 1);
    return mode == ADDRESSING_64 ? 4 : 2;
}

void xd_cs_synced(xd_gpu *gpu, uint32_t engine, uint32_t has_root)
{
    xd_state_of(gpu, engine)->needs_sync = 0;
    gpu->engines[engine].without_root = !has_root;
    gpu->engines[engine].space.epoch = gpu->memory.shadow->epoch;
    gpu->engines[engine].space.is_final = ++gpu->engines[engine].syncs > SYNCS_IN_VAIN;
}

void xd_cs_invalidate(xd_gpu *gpu, uint32_t engine)
{
    if (!xd_execlists_idle(gpu, engine))
        xd_state_of(gpu, engine)->needs_sync = 1;
}

void xd_cs_adopt(xd_gpu *gpu)
{
    xd_gm_drop(&gpu->memory);
    for (uint32_t engine = 0; engine < XD_ENGINES; engine++) {
        xd_cs_invalidate(gpu, engine);
        if (!xd_execlists_idle(gpu, engine))
            xd_execlists_show(gpu, engine);
    }
    if (xd_interrupt_pending(gpu))
        gpu->attention |= XD_ATTENTION_INTERRUPT; /* nobody knows whether it was sent */
}
