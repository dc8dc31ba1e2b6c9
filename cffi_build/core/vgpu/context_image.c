#include "context_image.h"

#include "cs.h"
#include "execlists.h"

#include <string.h>

enum { NOOP = 0, OPCODE_SHIFT = 23, LOAD_REGISTER_IMM = 0x22, BATCH_BUFFER_END = 0x0a, LENGTH_MASK = 0xff };
enum { CONTROL_AT = 0x03, TAIL_AT = 0x07, MOST_PAIRS = 126, EXTRA_END = XD_IMAGE_DWORDS - 1 };

/* A walk through the program of an image. */
typedef struct program {
    const uint32_t *dwords;
    uint32_t at, end;
    uint32_t pairs; /* that are left of the current command */
} program;

/* Finds the next pair of offset and value. Returns the place of the offset, or 0 at the end. */
static uint32_t next_pair(program *one)
{
    while (!one->pairs) {
        if (one->at >= one->end)
            return 0;
        uint32_t header = one->dwords[one->at++];
        if (header >> OPCODE_SHIFT == LOAD_REGISTER_IMM)
            one->pairs = ((header & LENGTH_MASK) + 1) / 2;
        else if (header != NOOP)
            return 0;
    }
    if (one->at + 2 > one->end)
        return 0;
    one->pairs--;
    one->at += 2;
    return one->at - 2;
}

static int read_image(xd_cs *cs, uint32_t *image)
{
    uint64_t address = xd_cs_context(cs) + XD_FRAME_SIZE;
    int result = xd_gm_read(&cs->gpu->memory, &xd_ggtt, address, image, XD_FRAME_SIZE);
    return result == XD_GM_AGAIN ? xd_cs_reason(&cs->gpu->memory, result) : XD_CS_IDLE;
}

static bool is_pdp(uint32_t from_base)
{
    return from_base >= RING_PDP0 && from_base < RING_PDP0 + 0x20;
}

/* Whether a new context gets this register from its image. */
static bool is_of_ring(uint32_t from_base)
{
    return from_base == RING_HEAD || from_base == RING_TAIL || from_base == RING_START || from_base == RING_CTL ||
           from_base == RING_CONTEXT_CONTROL || from_base == RING_CTX_TIMESTAMP || is_pdp(from_base) ||
           (from_base >= RING_BB_PER_CTX && from_base <= RING_INDIRECT_CTX_OFFSET);
}

/* Whether the driver alone says what this register is, so that a save leaves it alone. */
static bool is_of_driver(uint32_t from_base)
{
    return from_base == RING_TAIL || from_base == RING_START || from_base == RING_CTL || is_pdp(from_base) ||
           (from_base >= RING_BB_PER_CTX && from_base <= RING_INDIRECT_CTX_OFFSET);
}

static bool is_masked(const xd_gpu *gpu, uint32_t offset)
{
    const xd_register_rule *rule = xd_rule_of(gpu, offset);
    return rule && rule->masked;
}

static void reset_register(xd_gpu *gpu, uint32_t offset)
{
    const xd_register_rule *rule = xd_rule_of(gpu, offset);
    if (offset < XD_REGISTERS_SIZE)
        xd_register_store(gpu, offset, rule ? rule->reset : 0);
}

/* Loads a register from an image. Those that nobody else may write are loaded as they are. */
static void load_register(xd_cs *cs, uint32_t offset, uint32_t value)
{
    const xd_register_rule *rule = xd_rule_of(cs->gpu, offset);
    if (rule && !rule->writable && !rule->write_one_to_clear)
        xd_register_store(cs->gpu, offset, value);
    else
        xd_cs_register_store(cs->gpu, cs->number, offset, value, UINT32_MAX);
}

/* Loads the registers of the program between two places. */
static void run_program(xd_cs *cs, const uint32_t *image, uint32_t from, uint32_t to)
{
    program one = {image, from, to, 0};
    bool inhibited = image[CONTROL_AT] & RESTORE_INHIBIT;
    for (uint32_t at; (at = next_pair(&one));) {
        uint32_t offset = image[at] & 0x7ffffc, from_base = offset - cs->kind->base;
        if (!inhibited || is_of_ring(from_base))
            load_register(cs, offset, image[at + 1]);
        else
            reset_register(cs->gpu, offset);
    }
    if (inhibited && from == XD_IMAGE_RING)
        for (uint32_t i = 0; i < cs->kind->extra_count; i++)
            reset_register(cs->gpu, cs->kind->extra[i]);
}

static void restore_ring(xd_cs *cs, const uint32_t *image)
{
    static const uint32_t cleared[] = {RING_TAIL, RING_HEAD, RING_START, RING_CTL, RING_INDIRECT_CTX};
    xd_gpu *gpu = cs->gpu;
    xd_engine_state *state = cs->state;
    uint32_t base = cs->kind->base;
    for (size_t i = 0; i < sizeof(cleared) / sizeof(*cleared); i++)
        xd_register_store(gpu, base + cleared[i], 0); /* of an image that is not there */
    run_program(cs, image, 0, XD_IMAGE_RING);
    gpu->counts.contexts++;
    state->level = 0;
    state->loaded_at = xd_ticks(gpu);
    state->needs_tail = 0;
    state->predicate = 0;
    state->arbitration = 1;
    state->needs_sync = 1;
    cs->engine->without_root = 0;
    cs->engine->window_count = 0;
    state->levels[0] = (xd_cs_level){.ip = xd_register(gpu, base + RING_HEAD) & 0x1ffffc};
    uint32_t batch = xd_register(gpu, base + RING_INDIRECT_CTX);
    state->phase = XD_PHASE_REST;
    if (batch & 0x3f) {
        uint64_t start = batch & ~0x3fu;
        state->levels[1] = (xd_cs_level){.ip = start, .end = start + 64 * (batch & 0x3f)};
        state->level = 1;
        state->phase = XD_PHASE_INDIRECT;
    }
}

int xd_context_restore(struct xd_cs *cs)
{
    uint32_t image[XD_IMAGE_DWORDS];
    int reason = read_image(cs, image);
    if (reason)
        return reason;
    if (cs->state->phase == XD_PHASE_RESTORE) {
        restore_ring(cs, image);
    } else {
        run_program(cs, image, XD_IMAGE_RING, XD_IMAGE_DWORDS);
        cs->state->phase = XD_PHASE_RUN;
    }
    return XD_CS_IDLE;
}

int xd_context_new_tail(struct xd_cs *cs)
{
    uint64_t tail;
    int reason = xd_cs_load(cs, &xd_ggtt, xd_cs_context(cs) + XD_FRAME_SIZE + 4 * TAIL_AT, 4, &tail);
    if (reason)
        return reason;
    xd_register_store(cs->gpu, cs->kind->base + RING_TAIL, (uint32_t)tail);
    cs->state->needs_tail = 0;
    return XD_CS_IDLE;
}

/* Returns what a save stores of the register at `offset`. before: what is there. */
static uint32_t saved(const xd_cs *cs, uint32_t offset, uint32_t before)
{
    uint32_t from_base = offset - cs->kind->base;
    if (offset >= XD_REGISTERS_SIZE)
        return before;
    if (from_base == RING_CONTEXT_CONTROL)
        return before & ~(uint32_t)RESTORE_INHIBIT;
    uint32_t value = xd_cs_register(cs->gpu, cs->number, offset);
    if (from_base == RING_HEAD)
        return (uint32_t)cs->state->levels[0].ip;
    if (from_base == RING_MI_MODE)
        value &= ~(uint32_t)(STOP_RING | MODE_IDLE);
    return is_masked(cs->gpu, offset) ? 0xffff0000 | value : value;
}

/* Stores the registers of the ring part, each where the program has it, if they have changed. */
static int save_ring(xd_cs *cs, const uint32_t *image)
{
    uint64_t address = xd_cs_context(cs) + XD_FRAME_SIZE;
    program one = {image, 0, XD_IMAGE_RING, 0};
    for (uint32_t at; (at = next_pair(&one));) {
        uint32_t offset = image[at] & 0x7ffffc;
        if (is_of_driver(offset - cs->kind->base))
            continue;
        uint32_t value = saved(cs, offset, image[at + 1]);
        if (value == image[at + 1])
            continue;
        int reason = xd_cs_store_status(cs, address + 4 * (at + 1), value, 4);
        if (reason)
            return reason;
    }
    return XD_CS_IDLE;
}

/* Writes the program for the other registers. Returns how many dwords. */
static uint32_t write_extra(const xd_cs *cs, uint32_t *program_at, uint32_t room)
{
    uint32_t at = 0, left = cs->kind->extra_count;
    const uint32_t *offset = cs->kind->extra;
    while (left) {
        uint32_t pairs = left < MOST_PAIRS ? left : MOST_PAIRS;
        if (at + 1 + 2 * pairs >= room)
            break;
        program_at[at++] = LOAD_REGISTER_IMM << OPCODE_SHIFT | (2 * pairs - 1);
        for (left -= pairs; pairs; pairs--, offset++) {
            program_at[at++] = *offset;
            program_at[at++] = saved(cs, *offset, 0);
        }
    }
    program_at[at++] = BATCH_BUFFER_END << OPCODE_SHIFT;
    return at;
}

/* Stores dwords that only a save writes. Returns XD_CS_IDLE or a reason. */
static int store_dwords(xd_cs *cs, uint64_t address, const uint32_t *dwords, uint32_t count)
{
    int result = xd_gm_write(&cs->gpu->memory, &xd_ggtt, address, dwords, 4 * count);
    if (result == XD_GM_AGAIN)
        return xd_cs_reason(&cs->gpu->memory, result);
    for (uint32_t i = 0; result == XD_GM_TRACKED && i < count; i++) {
        int reason = xd_cs_store_status(cs, address + 4 * i, dwords[i], 4);
        if (reason)
            return reason;
    }
    return XD_CS_IDLE;
}

/* A save may be repeated, whole or from any place: what it stores depends on the registers alone. */
int xd_context_save(struct xd_cs *cs)
{
    uint32_t image[XD_IMAGE_DWORDS], extra[XD_IMAGE_DWORDS];
    int reason = read_image(cs, image);
    if (!reason)
        reason = save_ring(cs, image);
    if (!reason && cs->kind->extra_count) {
        uint32_t count = write_extra(cs, extra, EXTRA_END - XD_IMAGE_RING);
        uint64_t address = xd_cs_context(cs) + XD_FRAME_SIZE + 4 * XD_IMAGE_RING;
        if (memcmp(extra, image + XD_IMAGE_RING, 4 * count) != 0)
            reason = store_dwords(cs, address, extra, count);
    }
    if (!reason)
        xd_execlists_ended(cs);
    return reason;
}
