/* Registers as commands see them. */
#include "gpu.h"

#include "stats.h"

#include <stdbool.h>
#include <stddef.h>

_Static_assert(sizeof(xd_engine_page) <= XD_FRAME_SIZE, "an engine has one page");

/* Registers that do something: a command that stores to one of them is as if it did not. */
static bool is_action(uint32_t base, uint32_t offset)
{
    return offset - base == RING_ELSP || offset - base == RING_EXECLIST_STATUS ||
           offset - base == RING_EXECLIST_STATUS + 4 || offset - base == RING_CSB_PTR || offset == MASTER_IRQ ||
           (offset >= GT_ISR && offset < GT_ISR + 0x40);
}

static bool is_tlb(uint32_t offset)
{
    return offset >= RTCR && offset <= VTCR;
}

uint32_t xd_engine_state_size(void)
{
    return sizeof(xd_engine_state);
}

void xd_gpu_commit(xd_gpu *gpu, const xd_change *changes, uint32_t count)
{
    xd_journal_record *record = gpu->record;
    gpu->record = NULL;
    if (!record) {
        for (uint32_t i = 0; i < count; i++)
            __atomic_store_n(changes[i].at, changes[i].value, __ATOMIC_SEQ_CST);
        return;
    }
    xd_journal_word words[XD_JOURNAL_WORDS];
    for (uint32_t i = 0; i < count; i++)
        words[i] = (xd_journal_word){(uint64_t)(changes[i].at - gpu->words), changes[i].value};
    xd_journal_commit(record, (uint32_t)gpu->element, words, count, gpu->words);
}

xd_engine_state *xd_state_copy(xd_gpu *gpu, uint32_t engine)
{
    xd_engine_page *page = &gpu->pages[engine];
    xd_engine_state *other = &page->halves[~page->current & 1];
    *other = page->halves[page->current & 1];
    return other;
}

void xd_state_flip(xd_gpu *gpu, uint32_t engine)
{
    uint64_t *current = &gpu->pages[engine].current;
    xd_gpu_commit(gpu, &(xd_change){current, ~*current & 1}, 1);
}

uint64_t xd_ticks(const xd_gpu *gpu)
{
    return (gpu->clock_ns ? gpu->clock_ns : xd_now()) * 12 / 1000;
}

uint32_t xd_cs_register(const xd_gpu *gpu, uint32_t engine, uint32_t offset)
{
    if (offset >= XD_REGISTERS_SIZE)
        return 0;
    for (uint32_t i = 0; i < XD_ENGINES; i++) {
        uint32_t from_base = offset - gpu->kinds[i].base;
        if (from_base == RING_TIMESTAMP)
            return (uint32_t)xd_ticks(gpu);
        if (from_base == RING_TIMESTAMP_UDW)
            return xd_ticks(gpu) >> 32 & 0xf;
        if (from_base == RING_CTX_TIMESTAMP && xd_state_of(gpu, i)->phase != XD_PHASE_IDLE)
            return xd_register(gpu, offset) + (uint32_t)(xd_ticks(gpu) - xd_state_of(gpu, i)->loaded_at);
    }
    (void)engine;
    return xd_register(gpu, offset);
}

const xd_register_rule *xd_rule_of(const xd_gpu *gpu, uint32_t offset)
{
    uint64_t low = 0, high = gpu->rule_count;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (gpu->rules[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < gpu->rule_count && gpu->rules[low].offset == offset ? &gpu->rules[low] : NULL;
}

int xd_cs_register_store(xd_gpu *gpu, uint32_t engine, uint32_t offset, uint32_t value, uint32_t lanes)
{
    uint32_t base = gpu->kinds[engine].base;
    if (offset >= XD_REGISTERS_SIZE || is_action(base, offset))
        return 0;
    if (is_tlb(offset) || (offset - base >= RING_PDP0 && offset - base < RING_PDP0 + 0x20))
        xd_state_of(gpu, engine)->needs_sync = 1;
    if (is_tlb(offset))
        return 0;
    const xd_register_rule *rule = xd_rule_of(gpu, offset);
    uint32_t old = xd_register(gpu, offset);
    uint32_t writable = lanes, clears = 0;
    if (rule) {
        writable &= rule->writable;
        clears = rule->write_one_to_clear & lanes;
        if (rule->masked)
            writable &= value >> 16;
    }
    uint32_t new = ((old & ~writable) | (value & writable)) & ~(value & clears);
    if (new == old)
        return 0;
    xd_register_store(gpu, offset, new);
    return 1;
}

static bool is_in(const uint32_t *offsets, uint32_t count, uint32_t offset)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (offsets[middle] < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && offsets[low] == offset;
}

int xd_cs_may_store(const xd_gpu *gpu, uint32_t engine, uint32_t offset)
{
    const xd_engine_kind *kind = &gpu->kinds[engine];
    if (offset - kind->base - RING_GPR < 8 * RING_GPR_COUNT || is_in(kind->allowed, kind->allowed_count, offset))
        return 1;
    for (uint32_t i = 0; i < RING_NONPRIV_COUNT; i++)
        if ((xd_register(gpu, kind->base + RING_NONPRIV + 4 * i) & 0x3fffffc) == offset)
            return 1;
    return 0;
}
