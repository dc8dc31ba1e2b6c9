#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "hostile.h"
#include "hostile_random.h"

enum { FRAME = 4096, SHIFT = 12, EDGE = 511 };
enum { STORE, LOAD, FILL, COPY, REP_STOS, REP_MOVS, XCHG, CMPXCHG, REMOVE, ADD, OUT, IN, MODIFY, HYPERCALL };
enum { NONE, READY, INPROCESS, RESP_READY, STATES = 16 };
enum { PVINFO_PDP = 0x78838, PVINFO_NOTIFY = 0x78818, GAMW = 0x4080 };

static uint64_t table_frame(const hostile_guest *g, uint64_t *seed)
{
    return 1 + below(seed, g->tables);
}

static uint64_t index_of_entry(uint64_t *seed)
{
    static const uint16_t hot[] = { 0, 0, 1, 2, 3, 15, 16, 17, 255, 256, 510, EDGE };
    return chance(seed, 950) ? hot[below(seed, 12)] : below(seed, 512);
}

/* An entry: mostly of a table, often of no use. */
static uint64_t entry(const hostile_guest *g, uint64_t *seed)
{
    static const uint16_t flags[] = { 0x003, 0x003, 0x003, 0x083, 0x001, 0x803, 0x883, 0x01b, 0x1083, 0xfff, 0x013 };
    uint64_t what = below(seed, 100);
    if (what < 25)
        return 0;
    if (what < 28)
        return draw(seed);
    if (what < 29)
        return UINT64_MAX - below(seed, 2);
    uint64_t frame = what < 75 ? table_frame(g, seed) : below(seed, g->frames + (what < 80 ? 600 : 0));
    return frame << SHIFT | flags[below(seed, 11)];
}

static bool owned(const hostile_guest *g, uint64_t gpa)
{
    return gpa >> SHIFT < g->frames && g->owned[gpa >> SHIFT] == HOSTILE_OWNED;
}

/*
 * Where the next instruction stores to. Xen crashes a domain if a page is replaced while another vCPU waits for the
 * answer to a store to it. So where several vCPUs replace pages, each of them stores to its own alone.
 */
static uint64_t target(const hostile_guest *g, hostile_vcpu *v)
{
    uint64_t *seed = &v->seed;
    uint64_t frame = table_frame(g, seed);
    if (chance(seed, 100))
        frame = below(seed, g->frames);
    if (chance(seed, 2) && !(g->may & HOSTILE_EXACT))
        frame = below(seed, 1u << 30);
    if (g->may & HOSTILE_BALLOON)
        frame += v->id - frame % g->vcpus;
    return frame << SHIFT | index_of_entry(seed) << 3;
}

static uint64_t room_in_page(uint64_t gpa)
{
    return FRAME - gpa % FRAME;
}

static void note_write(hostile_guest *g, uint32_t offset, uint32_t size, uint64_t value)
{
    g->log[g->writes++] = (hostile_write){ offset, size, value };
}

static int write_register(hostile_guest *g, uint32_t vcpu, hostile_vcpu *v, uint32_t offset, uint32_t size,
                          uint64_t value)
{
    hostile_op op = { .kind = STORE, .gpa = g->bar0 + offset, .size = size, .value = value };
    v->registers++;
    if (vcpu == 0)
        note_write(g, offset, size, size == 8 ? value : value & ((UINT64_C(1) << 8 * size) - 1));
    return g->run(g->domain, vcpu, &op, 1, NULL);
}

/*
 * Announce a space, or end one, as a driver does; now and then with nonsense. Only vCPU 0 writes registers that mean
 * something, so their order is known.
 */
static int announce(hostile_guest *g, uint32_t vcpu, hostile_vcpu *v)
{
    static const uint32_t others[] = { 0, 0x78000, 0x100000, 0x407c, GAMW, 0x4082, 0x78808, 0x78814 };
    uint64_t *seed = &v->seed;
    if (vcpu || chance(seed, 100)) {
        uint32_t size = 1u << below(seed, 4), offset = others[below(seed, vcpu ? 3 : 8)];
        return write_register(g, vcpu, v, offset, size, chance(seed, 500) ? draw(seed) : 0xf);
    }
    uint32_t what = (uint32_t)(chance(seed, 950) ? 2 + below(seed, 4) : below(seed, 9));
    int rc = 0;
    for (uint32_t n = 0; n < (what == 2 || what == 3 ? 4u : 1u) && !rc; n++) {
        uint64_t root = (n && chance(seed, 600) ? 0 : 1 + below(seed, g->roots)) << SHIFT;
        if (chance(seed, 20))
            root = draw(seed);
        rc = write_register(g, vcpu, v, PVINFO_PDP + 8 * n, 8, root);
    }
    return rc ? rc : write_register(g, vcpu, v, PVINFO_NOTIFY, 4, what);
}

/* Give a frame back, or take one. The harness's record says "changing" while nobody can tell. */
static int balloon(hostile_guest *g, uint32_t vcpu, hostile_vcpu *v)
{
    uint64_t gfn = chance(&v->seed, 700) ? table_frame(g, &v->seed) : below(&v->seed, g->first_foreign);
    gfn -= gfn % g->vcpus;
    gfn += vcpu;
    if (!gfn || gfn >= g->first_foreign)
        return 0;
    bool add = chance(&v->seed, 600);
    hostile_op op = { .kind = add ? ADD : REMOVE, .gpa = gfn, .count = 1 };
    v->balloons++;
    __atomic_store_n(&g->owned[gfn], HOSTILE_CHANGING, __ATOMIC_SEQ_CST);
    int rc = g->run(g->domain, vcpu, &op, 1, NULL);
    if (!rc) {
        __atomic_store_n(&g->owned[gfn], add ? HOSTILE_OWNED : HOSTILE_LOST, __ATOMIC_SEQ_CST);
        if (g->may & HOSTILE_EXACT)
            memset(g->model + (gfn << SHIFT), 0, FRAME);
    }
    return rc;
}

static void model_store(const hostile_guest *g, uint64_t gpa, const void *from, uint64_t size)
{
    const uint8_t *bytes = from;
    for (uint64_t i = 0; i < size; i++)
        if (owned(g, gpa + i))
            g->model[gpa + i] = bytes[i];
}

static uint64_t model_load(const hostile_guest *g, uint64_t gpa, uint32_t size)
{
    uint64_t value = 0;
    memcpy(&value, g->model + gpa, size);
    return value;
}

static uint64_t modified(uint64_t old, uint64_t how, uint64_t operand)
{
    return how == 0 ? old | operand : how == 1 ? old & operand : how == 2 ? old ^ operand : old + operand;
}

/* What the instruction must do to memory. */
static void apply(const hostile_guest *g, hostile_vcpu *v, const hostile_op *op, const uint8_t *bytes)
{
    uint64_t step = op->down ? -(uint64_t)op->size : op->size;
    switch (op->kind) {
    case STORE:
        model_store(g, op->gpa, op->other ? bytes : (const uint8_t *)&op->value, op->size);
        break;
    case COPY:
        model_store(g, op->gpa, bytes, op->count);
        break;
    case FILL:
    case REP_STOS:
        for (uint64_t i = 0; i < op->count; i++)
            model_store(g, op->gpa + i * step, &op->value, op->size);
        break;
    case REP_MOVS:
        for (uint64_t i = 0; i < op->count; i++) {
            uint64_t value = model_load(g, op->other + i * step, op->size);
            model_store(g, op->gpa + i * step, &value, op->size);
        }
        break;
    case LOAD:
        v->misread += op->result != model_load(g, op->gpa, op->size);
        break;
    case XCHG:
    case MODIFY: {
        uint64_t old = model_load(g, op->gpa, op->size);
        uint64_t value = op->kind == XCHG ? op->value : modified(old, op->other, op->value);
        v->misread += op->result != old;
        model_store(g, op->gpa, &value, op->size);
        break;
    }
    default:
        break;
    }
}

/* Choose an instruction. Returns how many stores it is. `bytes` is 256 bytes for what it stores. */
static uint64_t choose(const hostile_guest *g, hostile_vcpu *v, hostile_op *op, uint8_t *bytes)
{
    uint64_t *seed = &v->seed;
    bool exact = g->may & HOSTILE_EXACT, straddle = g->may & HOSTILE_STRADDLE;
    uint64_t what = below(seed, 1000);
    *op = (hostile_op){ .kind = STORE, .gpa = target(g, v), .size = 8, .value = entry(g, seed) };
    if (what < 620)
        return 1;
    if (what < 760) { /* part of an entry, or of two */
        op->size = 1u << below(seed, 4);
        op->gpa += below(seed, 8);
        op->value = chance(seed, 700) ? op->value >> 8 * below(seed, 8) : draw(seed);
        if (!straddle && op->size > room_in_page(op->gpa))
            op->gpa &= ~UINT64_C(7);
        return 1;
    }
    if (what < 800) {
        op->kind = FILL;
        op->count = chance(seed, 20) ? 512 : 2 + below(seed, 14);
        op->value = op->count == 512 && chance(seed, 900) ? 0 : op->value;
        op->count = op->count * 8 > room_in_page(op->gpa) ? room_in_page(op->gpa) / 8 : op->count;
        return op->count;
    }
    if (what < 850) {
        uint64_t size = 1 + below(seed, what < 825 ? 200 : 64);
        for (uint64_t i = 0; i < size; i += 8) {
            uint64_t value = entry(g, seed);
            memcpy(bytes + i, &value, 8);
        }
        if (!straddle && size > room_in_page(op->gpa))
            size = room_in_page(op->gpa);
        op->other = (uintptr_t)bytes;
        op->kind = what < 825 ? COPY : STORE;
        op->count = op->kind == COPY ? size : 0;
        op->size = (uint32_t)size;
        return (size + 7) / 8;
    }
    if (what < 900) { /* rep stos */
        op->kind = REP_STOS;
        op->size = 1u << below(seed, 4);
        op->down = chance(seed, 200);
        op->count = 1 + below(seed, chance(seed, 50) ? 512 : 24);
        uint64_t room = (op->down ? op->gpa % FRAME + op->size : room_in_page(op->gpa)) / op->size;
        if (op->count > room && (exact || chance(seed, 800)))
            op->count = room;
        return op->count;
    }
    if (what < 920) { /* rep movs, perhaps from the device */
        op->kind = REP_MOVS;
        op->other = exact || chance(seed, 800) ? target(g, v) : g->bar0 + below(seed, 2048) * FRAME;
        op->size = 1u << below(seed, 4);
        op->count = 1 + below(seed, chance(seed, 50) ? 512 : 24);
        uint64_t room = room_in_page(op->gpa) / op->size, there = room_in_page(op->other) / op->size;
        room = room < there ? room : there;
        op->count = op->count < room ? op->count : room;
        if (exact && !owned(g, op->other))
            op->other = op->gpa;
        if (exact && !owned(g, op->gpa)) {
            op->kind = STORE;
            op->other = 0;
        }
        return op->count;
    }
    if (what < 975) { /* to be read as well */
        static const uint16_t kinds[] = { XCHG, MODIFY, LOAD, CMPXCHG };
        op->kind = kinds[below(seed, exact ? 3 : 4)];
        op->size = 4 << below(seed, 2);
        op->other = op->kind == MODIFY ? below(seed, 4) : 0;
        op->value = op->size == 4 ? (uint32_t)op->value : op->value;
        if (exact && !owned(g, op->gpa)) {
            op->kind = STORE;
            op->other = 0;
        }
        return op->kind != LOAD;
    }
    if (what < 977 && !exact) { /* an answer of a hypercall */
        op->kind = HYPERCALL;
        memset(bytes, 0, 64);
        op->other = (uintptr_t)bytes;
        op->size = op->size > room_in_page(op->gpa) ? 8 : 64;
        return 1;
    }
    return 1;
}

int hostile_run(hostile_guest *g, uint32_t vcpu, hostile_vcpu *v, uint64_t stores)
{
    uint64_t end = v->stores + stores;
    uint8_t bytes[512];
    int rc = 0;
    while (v->stores < end && !rc && !__atomic_load_n(&g->stop, __ATOMIC_RELAXED) && g->writes + 8 < g->log_size) {
        uint64_t what = below(&v->seed, 1000);
        if (what < 12) {
            rc = announce(g, vcpu, v);
            continue;
        }
        if (what < 14 && g->may & HOSTILE_BALLOON) {
            rc = balloon(g, vcpu, v);
            continue;
        }
        hostile_op op;
        uint64_t done = choose(g, v, &op, bytes);
        rc = g->run(g->domain, vcpu, &op, 1, NULL);
        if (rc == -EFAULT) {
            v->faults++;
            rc = 0;
        } else if (!rc && g->may & HOSTILE_EXACT) {
            apply(g, v, &op, bytes);
        }
        v->stores += done;
        v->loads += op.kind == LOAD;
    }
    return rc;
}

/* A guest physical address, of anything. */
static uint64_t any_address(const hostile_guest *g, uint64_t *seed)
{
    static const uint32_t registers[] = { PVINFO_PDP, PVINFO_PDP, PVINFO_NOTIFY, PVINFO_NOTIFY, GAMW, 0x78000 };
    uint64_t what = below(seed, 100);
    if (what < 60)
        return (table_frame(g, seed) << SHIFT | index_of_entry(seed) << 3) + (what < 10 ? below(seed, 8) : 0);
    if (what < 75)
        return g->bar0 + registers[below(seed, 6)] + (what < 64 ? below(seed, 32) : 0);
    if (what < 80)
        return g->bar0 + below(seed, 17 << 20);
    if (what < 95)
        return below(seed, g->frames + 2) << SHIFT | below(seed, FRAME);
    return what < 98 ? draw(seed) : UINT64_MAX - below(seed, 64);
}

static uint32_t any_size(uint64_t *seed)
{
    uint64_t what = below(seed, 100);
    return what < 90 ? 1u << below(seed, 4) : what < 97 ? (uint32_t)below(seed, 70) : (uint32_t)draw(seed);
}

static uint32_t any_count(uint64_t *seed)
{
    uint64_t what = below(seed, 1000);
    return what < 800 ? 1 : what < 960 ? (uint32_t)below(seed, 24) : what < 962 ? (uint32_t)below(seed, 4200)
           : what < 980 ? 0 : (uint32_t)draw(seed);
}

uint32_t hostile_fill(hostile_guest *g, hostile_slot *slots, uint32_t count, uint64_t *seed, uint8_t *posted)
{
    static const uint8_t types[] = { 1, 1, 1, 1, 1, 1, 1, 1, 0, 2, 7, 8 };
    uint32_t ready = 0;
    for (uint32_t i = 0; i < count; i++) {
        hostile_slot *slot = &slots[i];
        uint64_t what = below(seed, 100);
        slot->type = what < 97 ? types[below(seed, 12)] : (uint8_t)draw(seed);
        if (slot->type == 8 && chance(seed, 800)) /* each INVALIDATE has all frames asked about again */
            slot->type = 1;
        slot->addr = any_address(g, seed);
        if (slot->addr - g->bar0 == PVINFO_NOTIFY)
            slot->data = below(seed, 9);
        else if (slot->addr - g->bar0 - PVINFO_PDP < 32)
            slot->data = below(seed, g->roots + 1) << SHIFT;
        else
            slot->data = chance(seed, 850) ? entry(g, seed) : any_address(g, seed);
        slot->size = any_size(seed);
        slot->count = any_count(seed);
        slot->padding = (uint16_t)draw(seed);
        uint8_t bits = chance(seed, 800) ? 0 : (uint8_t)(draw(seed) & 0xf0);
        if (bits & 0x10) /* a pointer */
            slot->data = any_address(g, seed);
        posted[i] = (uint8_t)(chance(seed, 960) ? READY : below(seed, STATES));
        ready += posted[i] == READY;
        __atomic_store_n(&slot->bits, (uint8_t)(bits | posted[i]), __ATOMIC_RELEASE);
    }
    return ready;
}

void hostile_scribble(hostile_guest *g, hostile_slot *slots, uint32_t count, uint64_t seed)
{
    while (!__atomic_load_n(&g->stop, __ATOMIC_ACQUIRE)) {
        hostile_slot *slot = &slots[below(&seed, count)];
        switch (below(&seed, 5)) {
        case 0: __atomic_store_n(&slot->addr, any_address(g, &seed), __ATOMIC_RELAXED); break;
        case 1: __atomic_store_n(&slot->data, entry(g, &seed), __ATOMIC_RELAXED); break;
        case 2: __atomic_store_n(&slot->count, any_count(&seed), __ATOMIC_RELAXED); break;
        case 3: __atomic_store_n(&slot->size, any_size(&seed), __ATOMIC_RELAXED); break;
        default: __atomic_store_n(&slot->type, (uint8_t)below(&seed, 9), __ATOMIC_RELAXED); break;
        }
    }
}

void hostile_take(hostile_slot *slots, uint32_t count, uint8_t *posted)
{
    for (uint32_t i = 0; i < count; i++) {
        uint8_t state = __atomic_load_n(&slots[i].bits, __ATOMIC_ACQUIRE) & 0x0f;
        if (state == RESP_READY || (state == INPROCESS && posted[i] == INPROCESS)) {
            __atomic_store_n(&slots[i].bits, NONE, __ATOMIC_RELEASE);
            posted[i] = NONE;
        }
    }
}

int hostile_answered(hostile_slot *slots, uint32_t count, const uint8_t *posted)
{
    int wrong = -1;
    for (uint32_t i = 0; i < count; i++) {
        uint8_t state = __atomic_load_n(&slots[i].bits, __ATOMIC_ACQUIRE) & 0x0f;
        if (state != (posted[i] == READY ? RESP_READY : posted[i]) && wrong < 0)
            wrong = (int)i;
        __atomic_store_n(&slots[i].bits, NONE, __ATOMIC_RELEASE);
    }
    return wrong;
}
