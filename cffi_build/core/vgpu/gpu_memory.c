/* Guest memory as the GPU reaches it: translation, its cache, and guarded accesses. */
#include "gpu_memory.h"

#include "guard.h"
#include "guest_store.h"
#include "table.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum { OFFSET_MASK = XD_FRAME_SIZE - 1 };
static const uint64_t PPGTT_MASK = (UINT64_C(1) << 48) - 1;
static const uint64_t GGTT_MASK = (UINT64_C(1) << 32) - 1;
static const uint64_t GGTT_FRAME = ((UINT64_C(1) << XD_GGTT_ADDRESS_BITS) - 1) & ~(uint64_t)OFFSET_MASK;

/* Where a page leads, before it is known whether there is RAM. */
typedef struct leads {
    uint64_t gfn;
    bool mapped;
    bool writable;
    bool stale; /* not mapped, but the tables may say otherwise by now */
} leads;

void xd_gm_drop(xd_gpu_memory *memory)
{
    for (uint32_t i = 0; i < XD_GM_CACHE; i++)
        memory->cache[i].valid = 0;
}

static leads in_ggtt(const xd_gpu_memory *memory, uint64_t address)
{
    uint64_t number = address >> XD_FRAME_SHIFT;
    uint64_t entry = number < memory->ggtt_entries ? __atomic_load_n(&memory->ggtt[number], __ATOMIC_RELAXED) : 0;
    return (leads){.gfn = (entry & GGTT_FRAME) >> XD_FRAME_SHIFT, .mapped = entry & 1, .writable = true};
}

/*
 * Facts: an update of tables may be under way, and be at a place where entries map nothing that will map something. What
 * follows: a miss there is none. Decision: a miss counts only if no table on the way is unread, and the space was synced
 * in this epoch. Others may keep tables unread for as long as they like; so after some syncs in vain a miss counts, too.
 * Cost: the first miss after frames came or went takes a sync.
 */
static leads in_ppgtt(const xd_gpu_memory *memory, const xd_gpu_space *space, uint64_t address, uint32_t root)
{
    const xd_shadow *shadow = memory->shadow;
    leads found = {.stale = shadow->stale_tables && space->epoch != shadow->epoch};
    while (root) {
        const xd_table *table = &shadow->tables[root];
        if (table->flags & (XD_TABLE_UNREAD | XD_TABLE_BLANK))
            found.stale = true;
        if (table->flags & XD_TABLE_BLANK)
            return found; /* its entries are no entries yet */
        unsigned level = xd_level(table);
        unsigned shift = XD_FRAME_SHIFT + 9 * (level - 1);
        uint64_t entry = xd_page(shadow, root)[address >> shift & (XD_ENTRIES - 1)];
        if (level > 1 && xd_is_link(entry)) {
            root = xd_child(entry);
            continue;
        }
        if (!(entry & XD_PRESENT))
            return found;
        uint64_t start = level > 1 ? xd_frame_2m(entry) : xd_frame(entry);
        uint64_t within = level > 1 ? address >> XD_FRAME_SHIFT & (XD_ENTRIES - 1) : 0;
        return (leads){.gfn = start + within, .mapped = true, .writable = entry & XD_WRITABLE};
    }
    return found;
}

static uint32_t root_of(const xd_gpu_space *space, uint64_t address)
{
    if (space->level == 4)
        return space->roots[0];
    return address >> 32 ? 0 : space->roots[address >> 30];
}

static xd_gm_page *place_of(xd_gpu_memory *memory, uint64_t page, uint32_t root)
{
    return &memory->cache[(page ^ page >> 6 ^ (uint64_t)root * 7) % XD_GM_CACHE];
}

static int miss(xd_gpu_memory *memory, const xd_gpu_space *space, uint64_t address, bool write)
{
    if (!memory->fault.valid)
        memory->fault = (xd_gm_fault){.valid = 1, .level = space->level, .write = write, .address = address};
    return XD_GM_FAULT;
}

/* Fills a place of the cache. Returns XD_GM_DONE, or XD_GM_AGAIN. */
static int translate(xd_gpu_memory *memory, const xd_gpu_space *space, uint64_t address, uint32_t root,
                     xd_gm_page *place)
{
    leads to = space->level ? in_ppgtt(memory, space, address, root) : in_ggtt(memory, address);
    if (!to.mapped && to.stale && !space->is_final) {
        memory->stale = 1;
        return XD_GM_AGAIN;
    }
    int state = to.mapped ? xd_frames_state(memory->frames, to.gfn) : XD_FRAME_HOLE;
    char *chunk = state == XD_FRAME_HOLE ? NULL : memory->frames->mapped[to.gfn >> XD_CHUNK_SHIFT];
    if (state == XD_FRAME_UNKNOWN || (state == XD_FRAME_RAM && !chunk)) {
        xd_need_frame(&memory->need, to.gfn);
        return XD_GM_AGAIN;
    }
    *place = (xd_gm_page){.page = address >> XD_FRAME_SHIFT, .root = root, .valid = 1, .writable = to.writable};
    if (chunk) {
        place->gfn = to.gfn;
        place->at = chunk + ((to.gfn & (XD_CHUNK_FRAMES - 1)) << XD_FRAME_SHIFT);
        place->tracked = xd_first_of_frame(memory->shadow, to.gfn) != 0;
    }
    return XD_GM_DONE;
}

/* Finds the page of an access. Returns XD_GM_DONE, with *found; FAULT, or AGAIN. */
static int look_up(xd_gpu_memory *memory, const xd_gpu_space *space, uint64_t *address, bool write, xd_gm_page **found)
{
    *address &= space->level ? PPGTT_MASK : GGTT_MASK;
    uint32_t root = space->level ? root_of(space, *address) : 0;
    uint64_t page = *address >> XD_FRAME_SHIFT;
    xd_gm_page *place = place_of(memory, page, root);
    if (!place->valid || place->page != page || place->root != root) {
        memory->need.count = 0;
        memory->stale = 0;
        int result = translate(memory, space, *address, root, place);
        if (result)
            return result;
    }
    if (!place->at || (write && !place->writable))
        return miss(memory, space, *address, write);
    memory->frame = place->gfn;
    *found = place;
    return XD_GM_DONE;
}

static bool is_one_access(uint64_t address, uint32_t size)
{
    return (size == 4 || size == 8) && !(address & (size - 1));
}

int xd_gm_read(xd_gpu_memory *memory, const xd_gpu_space *space, uint64_t address, void *to, uint32_t size)
{
    xd_gm_page *place;
    int result = look_up(memory, space, &address, false, &place);
    if (result) {
        if (result == XD_GM_FAULT)
            memset(to, 0, size);
        return result;
    }
    const char *from = place->at + (address & OFFSET_MASK);
    if (is_one_access(address, size)) {
        uint64_t value = 0;
        result = xd_load(from, size, &value);
        memcpy(to, &value, size);
    } else {
        result = xd_read(to, from, size);
    }
    if (!result)
        return XD_GM_DONE;
    memset(to, 0, size);
    return miss(memory, space, address, false);
}

int xd_gm_write(xd_gpu_memory *memory, const xd_gpu_space *space, uint64_t address, const void *from, uint32_t size)
{
    xd_gm_page *place;
    int result = look_up(memory, space, &address, true, &place);
    if (result)
        return result;
    if (place->tracked)
        return XD_GM_TRACKED;
    char *to = place->at + (address & OFFSET_MASK);
    if (is_one_access(address, size)) {
        uint64_t value = 0;
        memcpy(&value, from, size);
        result = xd_store(to, value, size);
    } else {
        result = xd_write(to, from, size);
    }
    memory->stores++;
    return result ? miss(memory, space, address, true) : XD_GM_DONE;
}

int xd_gm_write_table(xd_gpu_memory *memory, const xd_gpu_space *space, uint64_t address, uint64_t value,
                      uint32_t size)
{
    xd_gm_page *place;
    int result = look_up(memory, space, &address, true, &place);
    if (result)
        return result;
    uint64_t gpa = place->gfn << XD_FRAME_SHIFT | (address & OFFSET_MASK);
    uint32_t held = memory->shadow->held;
    memory->shadow->held = 0; /* stores of vCPUs may be held, and this is none */
    result = xd_guest_store(memory->shadow, gpa, value, size, &memory->need);
    memory->shadow->held = held;
    if (result == -EAGAIN) {
        memory->stale = 0;
        return XD_GM_AGAIN;
    }
    xd_gm_drop(memory); /* tables say something else now */
    memory->stores++;
    if (result < 0)
        return miss(memory, space, address, true);
    if (result == XD_STORE_UNTRACKED || result == XD_STORE_DONE || result == XD_STORE_LATE)
        return XD_GM_DONE; /* of an unsynced table, the next sync reads it */
    memory->table = (xd_gm_table){.result = result, .size = size, .gpa = gpa, .value = value};
    return XD_GM_DIRECTORY;
}

/* An exchange in memory that may vanish. */
typedef struct exchange {
    uint64_t old, value;
    uint32_t size;
} exchange;

/* `more` is the exchange; its `old` becomes what was found. */
static void exchange_now(const void *address, void *more)
{
    exchange *one = more;
    void *at = (void *)(uintptr_t)address; /* the guard knows only addresses to read from */
    if (one->size == 8) {
        __atomic_compare_exchange_n((uint64_t *)at, &one->old, one->value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    } else {
        uint32_t old = (uint32_t)one->old;
        __atomic_compare_exchange_n((uint32_t *)at, &old, (uint32_t)one->value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        one->old = old;
    }
}

int xd_gm_exchange(xd_gpu_memory *memory, const xd_gpu_space *space, uint64_t address, uint64_t old, uint64_t value,
                   uint32_t size, uint64_t *found)
{
    xd_gm_page *place;
    int result = look_up(memory, space, &address, true, &place);
    if (result)
        return result;
    if (place->tracked)
        return XD_GM_TRACKED;
    exchange one = {old, value, size};
    result = xd_guarded(place->at + (address & OFFSET_MASK), size, exchange_now, &one);
    if (result)
        return miss(memory, space, address, true);
    *found = one.old;
    memory->stores += one.old == old;
    return XD_GM_DONE;
}
