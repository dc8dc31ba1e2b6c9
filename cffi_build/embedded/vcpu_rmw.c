/* Read-modify-write instructions. */
#include "vcpu_rmw.h"

#include "vcpu_insn.h"
#include "memory.h"
#include "phases.h"
#include "shadow_paging.h"
#include "wait.h"

/* Returns what the instruction leaves where it found `old`. */
static uint64_t result_of(const xd_emb_op *op, uint64_t old)
{
    if (op->kind != XD_OP_MODIFY)
        return op->value;
    switch (op->modify) {
    case XD_MODIFY_OR: return old | op->value;
    case XD_MODIFY_AND: return old & op->value;
    case XD_MODIFY_XOR: return old ^ op->value;
    default: return old + op->value;
    }
}

static uint64_t mask_of(const xd_emb_op *op)
{
    return op->size == 8 ? ~0ull : (1ull << op->size * 8) - 1;
}

/* Returns whether the instruction stores where it found `old`. */
static bool stores(const xd_emb_op *op, uint64_t old)
{
    return op->kind != XD_OP_CMPXCHG || old == (op->expected & mask_of(op));
}

/*
 * The instruction on plain memory: atomic if it is aligned. (One over two words, which an x86 would lock too, is not.)
 * Returns the old value.
 */
static uint64_t rmw_memory(xd_emb *d, const xd_emb_op *op, bool *stored)
{
    void *at = d->ram + op->gpa;
    uint64_t old = 0, new;
    if (op->gpa & (op->size - 1)) {
        emb_ram_load(d, op->gpa, (uint8_t *)&old, op->size);
        *stored = stores(op, old);
        new = result_of(op, old);
        if (*stored)
            emb_ram_store(d, op->gpa, (const uint8_t *)&new, op->size);
        return old;
    }
#define RMW(type)                                                                                                  \
    do {                                                                                                           \
        type was = __atomic_load_n((type *)at, __ATOMIC_SEQ_CST);                                                  \
        while ((*stored = stores(op, was)) &&                                                                      \
               !__atomic_compare_exchange_n((type *)at, &was, (type)result_of(op, was), false, __ATOMIC_SEQ_CST,   \
                                            __ATOMIC_SEQ_CST))                                                     \
            ;                                                                                                      \
        old = was;                                                                                                 \
    } while (0)
    switch (op->size) {
    case 8: RMW(uint64_t); break;
    case 4: RMW(uint32_t); break;
    case 2: RMW(uint16_t); break;
    default: RMW(uint8_t); break;
    }
#undef RMW
    return old;
}

/*
 * Facts: all but cmpxchg is done on a mapping of the memory (hvmemul_rmw, 0e8147c465), and read-only memory ends it
 * there, with success. What follows: not only the write is dropped, the register of an xchg does not change either. We
 * do as Xen does; the value that comes out is then the one that went in. Returns whether this was so.
 */
static bool rmw_discarded(emb_access *a, xd_emb_op *op)
{
    if (op->kind == XD_OP_CMPXCHG || emb_mapping_look(a) != XD_LOOK_DISCARD)
        return false;
    a->v->discarded = true;
    emb_unlock(a);
    op->result = op->value & mask_of(op);
    op->stored = false;
    return true;
}

/*
 * Facts: on a page that it cannot map, the emulator does a locked read-modify-write as a read and then a plain write by
 * request (hvmemul_cmpxchg); Xen's own comment admits that this is not atomic. The value read is kept over the passes
 * (hvmemul_cache, 2efbc2d446; before, the hardware's say that the fault was a read as well did the same). A cmpxchg
 * that fails writes nothing.
 */
static int rmw_emulated(emb_vcpu *v, emb_access *a, xd_emb_op *op)
{
    const xd_emb_rules *rules = &v->domain->rules;
    uint64_t old = 0, value;
    emb_access read = { .v = v, .bytes = (uint8_t *)&old, .fault_part = a->fault_part };
    emb_split(&read, op->gpa, op->size);
    if (rules->copy_load[XD_P2M_IOREQ_SERVER] == XD_LOOK_DIRECT)
        read.memory_first = true;
    /* Reading memory asks nobody, so the lock can go on to the write; a read by request has given it up. */
    bool memory = emb_look(v->domain, rules->copy_load, op->gpa) == XD_LOOK_DIRECT &&
                  emb_look(v->domain, rules->copy_load, emb_up(op->gpa, op->size - 1)) == XD_LOOK_DIRECT;
    int rc = EMB_DONE;
    if (memory) {
        emb_ram_load(v->domain, op->gpa, (uint8_t *)&old, op->size);
    } else {
        read.locked = a->locked;
        a->locked = false;
        rc = emb_emulate(&read);
    }
    bool store = stores(op, old);
    if (rc == EMB_DONE && store) {
        value = result_of(op, old);
        a->bytes = (uint8_t *)&value;
        a->no_copy = op->kind == XD_OP_CMPXCHG; /* hvmemul_linear_mmio_write */
        for (uint32_t i = 0; i < a->nr_parts; i++) {
            uint32_t look = emb_look(v->domain, rules->copy_store, a->parts[i].gpa);
            a->parts[i].io = look == XD_LOOK_DEVICE;
        }
        rc = emb_emulate(a);
    }
    emb_unlock(a);
    if (rc == EMB_DONE) {
        op->result = old;
        op->stored = store;
    }
    return rc;
}

/* The emulator of shadow paging reads and then writes, also what it drops (hvm_shadow_emulator_ops has no rmw). */
static int rmw_by_shadow(const emb_access *a, xd_emb_op *op)
{
    uint64_t old = 0;
    int rc = emb_shadow_load(a, (uint8_t *)&old);
    bool store = stores(op, old);
    if (rc == EMB_DONE && store) {
        uint64_t value = result_of(op, old);
        emb_access write = *a;
        write.bytes = (uint8_t *)&value;
        rc = emb_shadow_store(&write);
    }
    if (rc == EMB_DONE) {
        op->result = old;
        op->stored = store;
    }
    return rc;
}

int emb_rmw(emb_vcpu *v, xd_emb_op *op)
{
    xd_emb *d = v->domain;
    emb_point(v, XD_POINT_FETCH);
    for (;;) {
        uint32_t generation;
        emb_access a = { .v = v, .write = true };
        int rc = emb_begin(&a, op->gpa, op->size, &generation);
        if (rc < 0)
            return rc;
        if (rc == EMB_BY_GUEST) {
            bool stored;
            op->result = rmw_memory(d, op, &stored);
            op->stored = stored;
            return 0;
        }
        if (rc == EMB_BY_SHADOW) {
            rc = rmw_by_shadow(&a, op);
        } else {
            if (rmw_discarded(&a, op))
                return 0;
            rc = rmw_emulated(v, &a, op);
        }
        if (rc != EMB_RETRY)
            return rc;
        emb_sleep_until_bumped(v, generation);
    }
}
