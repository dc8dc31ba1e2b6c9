/* What is no plain load or store: read-modify-write, repeated instructions, port I/O, and the end of a hypercall. */
#include "domain.h"

#include <string.h>

/* One request that is all of an emulated access; `*data` is what a read gives. EMB_DONE, EMB_RETRY or -errno. */
static int request_and_wait(emb_vcpu *v, int server, const xd_ioreq *request, uint64_t *data)
{
    int rc = emb_post(v, (uint32_t)server, request);
    return rc ? rc : emb_wait_for_answers(v, data);
}

/* What a read-modify-write leaves where it found `old`. */
static uint64_t result_of(const xd_emb_op *op, uint64_t old)
{
    if (op->kind != XD_OP_MODIFY)
        return op->value;
    switch (op->data) {
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

static bool stores(const xd_emb_op *op, uint64_t old)
{
    return op->kind != XD_OP_CMPXCHG || old == (op->data & mask_of(op));
}

/* Read-modify-write on memory: atomic if it is aligned. (A split lock, that an x86 would honour, is not.) */
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
 * do as Xen does; the value that comes out is then the one that went in.
 */
static bool rmw_discarded(emb_access *a, xd_emb_op *op)
{
    if (op->kind == XD_OP_CMPXCHG || emb_mapping_look(a) != XD_LOOK_DISCARD)
        return false;
    a->v->discarded = true;
    emb_unlock(a);
    op->value &= mask_of(op);
    op->count = 0;
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
        read.fault_part = 1; /* it is memory to a read */
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
        op->value = old;
        op->count = store;
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
        if (rc == 1) {
            bool stored;
            op->value = rmw_memory(d, op, &stored);
            op->count = stored;
            return 0;
        }
        if (rmw_discarded(&a, op))
            return 0;
        rc = rmw_emulated(v, &a, op);
        if (rc != EMB_RETRY)
            return rc;
        emb_sleep_until_bumped(v, generation);
    }
}

/*
 * Repeated instructions: hvmemul_rep_stos, hvmemul_rep_movs. Device memory takes as many elements as the page holds in
 * one request, and one with a pointer if the other side is memory. Between memory and memory Xen would copy in bulk;
 * where its copy refuses (a trapped page, since d7bff2bc00) it does one element as a plain store, and the guest faults
 * again at the next. Bulk or not cannot be told apart otherwise, so here memory is done by the element too.
 */
static uint64_t fit(uint64_t gpa, const xd_emb_op *op, uint64_t count)
{
    uint64_t offset = gpa & (EMB_FRAME - 1);
    uint64_t room = (op->flags & XD_REP_DOWN ? offset + op->size : EMB_FRAME - offset) / op->size;
    uint64_t one = offset + op->size > EMB_FRAME ? 1 : room;
    return count < one ? count : one;
}

static bool is_device(const xd_emb *d, uint64_t gpa)
{
    return emb_type(d, gpa >> EMB_SHIFT) == XD_P2M_MMIO_DM;
}

static bool is_memory(const xd_emb *d, const uint8_t *table, uint64_t gpa)
{
    return emb_look(d, table, gpa) == XD_LOOK_DIRECT;
}

static int repeated_request(emb_vcpu *v, const xd_emb_op *op, uint64_t device, uint64_t other, bool read, uint64_t *count)
{
    xd_emb *d = v->domain;
    bool pointer = op->kind == XD_OP_REP_MOVS, down = op->flags & XD_REP_DOWN;
    *count = fit(device, op, *count);
    if (pointer)
        *count = fit(other, op, *count);
    uint64_t bytes = *count * op->size;
    uint64_t first = down ? device + op->size - bytes : device;
    int server = emb_select(d, XD_RANGE_MEMORY, first, first + bytes - 1);
    if (server >= 0) {
        xd_ioreq request = { .addr = device, .data = other, .count = (uint32_t)*count, .size = op->size,
                             .type = XD_IOREQ_COPY };
        request.bits = (uint8_t)((pointer ? XD_BIT_DATA_IS_PTR : 0) | (read ? XD_BIT_READ : 0) | (down ? XD_BIT_DOWN : 0));
        uint64_t ignored;
        return request_and_wait(v, server, &request, &ignored);
    }
    if (!read) {
        v->dropped = true;
    } else {
        uint8_t ones[8];
        memset(ones, 0xff, sizeof(ones));
        emb_count(d, XD_EMB_ALL_ONES_LOADS);
        for (uint64_t i = 0; i < *count && is_memory(d, d->rules.copy_store, other); i++)
            emb_ram_store(d, down ? other - i * op->size : other + i * op->size, ones, op->size);
    }
    return EMB_DONE;
}

/* `*count` in: elements left; out: how many were done. */
static int repeat_some(emb_vcpu *v, const xd_emb_op *op, uint64_t to, uint64_t from, uint64_t *count)
{
    xd_emb *d = v->domain;
    bool movs = op->kind == XD_OP_REP_MOVS;
    int rc = emb_enter(v, XD_PHASE_XEN);
    if (rc)
        return rc;
    if (is_device(d, to) && !(movs && !is_memory(d, d->rules.copy_load, from)))
        return repeated_request(v, op, to, movs ? from : op->value, false, count);
    if (movs && is_device(d, from) && emb_look(d, d->rules.store, to) != XD_LOOK_DISCARD && !is_device(d, to) &&
        d->rules.map_errno[emb_type(d, to >> EMB_SHIFT)] == 0)
        return repeated_request(v, op, from, to, true, count);
    *count = 1;
    uint64_t value = op->value;
    if (movs)
        rc = emb_load(v, from, (uint8_t *)&value, op->size);
    if (rc)
        return rc;
    /* The bulk copy's own look, which a trapped page did not stop before d7bff2bc00. */
    bool inside = (to & (EMB_FRAME - 1)) + op->size <= EMB_FRAME;
    if (inside && emb_look(d, d->rules.store, to) == XD_LOOK_OWNER && is_memory(d, d->rules.copy_store, to)) {
        emb_ram_store(d, to, (const uint8_t *)&value, op->size);
        return EMB_DONE;
    }
    return emb_store(v, to, (const uint8_t *)&value, op->size);
}

int emb_repeat(emb_vcpu *v, const xd_emb_op *op)
{
    uint64_t step = op->flags & XD_REP_DOWN ? (uint64_t)0 - op->size : op->size;
    int rc = 0;
    for (uint64_t i = 0; i < op->count && !rc;) {
        uint64_t count = op->count - i;
        rc = repeat_some(v, op, op->gpa + i * step, op->data + i * step, &count);
        i += count;
    }
    return rc;
}

/* Ports: hvm_access_cf8 and arch_ioreq_server_get_type_addr in xen/arch/x86/hvm/ioreq.c. */
enum { CF8 = 0xcf8, CFC = 0xcfc };

int emb_port_io(emb_vcpu *v, xd_emb_op *op)
{
    xd_emb *d = v->domain;
    uint64_t mask = (1ull << op->size * 8) - 1;
    bool read = op->kind == XD_OP_IN;
    xd_ioreq request = { .addr = op->gpa, .data = read ? 0 : op->value & mask, .count = 1, .size = op->size,
                         .type = XD_IOREQ_PIO, .bits = read ? XD_BIT_READ : 0 };
    int rc = emb_enter(v, XD_PHASE_XEN);
    if (rc)
        return rc;
    pthread_mutex_lock(&d->servers_lock);
    if (!read && op->gpa == CF8 && op->size == 4)
        d->cf8 = (uint32_t)op->value;
    uint32_t cf8 = d->cf8;
    pthread_mutex_unlock(&d->servers_lock);
    int server;
    if ((op->gpa & ~3ull) == CFC && cf8 >> 31) {
        uint64_t function = cf8 >> 8 & 0xffff;
        request.type = XD_IOREQ_PCI_CONFIG;
        request.addr = function << 32 | (cf8 & 0xfc) | (op->gpa & 3);
        server = emb_select(d, XD_RANGE_PCI, function, function);
        if (server == d->default_server) { /* it sees the ports, as QEMU did */
            request.type = XD_IOREQ_PIO;
            request.addr = op->gpa;
        }
    } else {
        server = emb_select(d, XD_RANGE_PORT, op->gpa, op->gpa + op->size - 1);
    }
    uint64_t data = mask;
    if (server >= 0)
        rc = request_and_wait(v, server, &request, &data);
    if (!rc && read)
        op->value = data & mask;
    return rc;
}

/*
 * What a hypercall hands back to the guest: hvm_copy_to_guest, page by page. A page that it cannot copy to ends it with
 * EFAULT, the pages before that have theirs.
 */
int emb_hypercall_output(emb_vcpu *v, xd_emb_op *op)
{
    xd_emb *d = v->domain;
    const uint8_t *from = (const uint8_t *)(uintptr_t)op->data;
    emb_access a = { .v = v, .write = true };
    int rc = emb_enter(v, XD_PHASE_XEN);
    if (rc)
        return rc;
    emb_split(&a, op->gpa, op->size);
    op->value = 0;
    for (uint32_t i = 0; i < a.nr_parts && !op->value; i++) {
        const emb_part *p = &a.parts[i];
        uint32_t look = emb_look(d, d->rules.copy_store, p->gpa);
        if (look == XD_LOOK_DIRECT)
            emb_ram_store(d, p->gpa, from + p->offset, p->size);
        else if (look != XD_LOOK_DISCARD)
            op->value = EFAULT;
    }
    return 0;
}

/* The end of a hypercall that took frames from the guest. */
int emb_invalidate(emb_vcpu *v)
{
    uint64_t data;
    int rc = emb_post_invalidate(v);
    return rc || !v->nr_pending ? rc : emb_wait_for_answers(v, &data);
}
