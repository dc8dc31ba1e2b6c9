/*
 * Repeated instructions: hvmemul_rep_stos, hvmemul_rep_movs in xen/arch/x86/hvm/emulate.c.
 *
 * Device memory takes as many elements as the page holds in one request, and a request with a pointer if the other side
 * is memory. Between memory and memory Xen would copy in bulk; where its copy refuses (a trapped page, since
 * d7bff2bc00) it does one element as a plain store, and the guest faults again at the next. Bulk or not cannot be told
 * apart otherwise, so here memory is done by the element, too.
 */
#include "vcpu_repeat.h"

#include "vcpu_insn.h"
#include "memory.h"
#include "phases.h"
#include "requests.h"

#include <string.h>

/* How many elements lie in the page of a device's address; one over the page's end goes alone: hvmemul_do_io. */
static uint64_t fit_device(uint64_t gpa, const xd_emb_op *op, uint64_t count)
{
    uint64_t offset = gpa & (EMB_FRAME - 1);
    uint64_t room = (op->down ? offset + op->size : EMB_FRAME - offset) / op->size;
    uint64_t most = offset + op->size > EMB_FRAME ? 1 : room;
    return count < most ? count : most;
}

/* Whether Xen finds a page behind an address that it can hold for a device model (hvmemul_acquire_page). */
static bool has_page(const xd_emb *d, uint64_t gpa)
{
    return d->rules.map_errno[emb_type(d, gpa >> EMB_SHIFT)] == 0;
}

/*
 * Downwards, Xen counts elements short by one: the element at the start of the page is taken for one that needs the
 * page before, and goes alone.
 */
uint64_t emb_fit_pointer(const xd_emb *d, uint64_t gpa, const xd_emb_op *op, uint64_t count)
{
    uint64_t offset = gpa & (EMB_FRAME - 1);
    uint64_t room = (op->down ? (offset + op->size - 1) & (EMB_FRAME - 1) : EMB_FRAME - offset) / op->size;
    if (!has_page(d, gpa))
        return 0;
    if (room)
        return count < room ? count : room;
    return has_page(d, op->down ? gpa - EMB_FRAME : emb_up(gpa, EMB_FRAME)) ? 1 : 0;
}

static bool is_device(const xd_emb *d, uint64_t gpa)
{
    return emb_type(d, gpa >> EMB_SHIFT) == XD_P2M_MMIO_DM;
}

static bool is_memory(const xd_emb *d, const uint8_t *table, uint64_t gpa)
{
    return emb_look(d, table, gpa) == XD_LOOK_DIRECT;
}

/* One request for `count` elements at a device; `data` is the value, or with DATA_IS_PTR the address of the memory. */
static int device_request(emb_vcpu *v, const xd_emb_op *op, uint64_t device, uint64_t data, uint8_t bits,
                          uint64_t count)
{
    uint64_t bytes = count * op->size;
    uint64_t first = op->down ? device + op->size - bytes : device;
    int server = emb_select(v->domain, XD_RANGE_MEMORY, first, first + bytes - 1);
    if (server >= 0) {
        xd_ioreq request = { .addr = device, .data = data, .count = (uint32_t)count, .size = op->size,
                             .bits = bits, .type = XD_IOREQ_COPY };
        uint64_t ignored;
        return emb_request_and_wait(v, (uint32_t)server, &request, &ignored);
    }
    if (bits & XD_BIT_READ)
        emb_store_all_ones(v, op, data, count);
    else
        v->dropped = true;
    return EMB_DONE;
}

void emb_store_all_ones(emb_vcpu *v, const xd_emb_op *op, uint64_t gpa, uint64_t count)
{
    xd_emb *d = v->domain;
    uint8_t ones[8];
    memset(ones, 0xff, sizeof(ones));
    emb_count(d, XD_EMB_ALL_ONES_LOADS);
    for (uint64_t i = 0; i < count; i++) {
        emb_access a = { .v = v, .write = true };
        emb_split(&a, gpa, op->size);
        for (uint32_t part = 0; part < a.nr_parts && is_memory(d, d->rules.copy_store, a.parts[part].gpa); part++)
            emb_ram_store(d, a.parts[part].gpa, ones, a.parts[part].size);
        gpa = op->down ? gpa - op->size : gpa + op->size;
    }
}

/* One element, by its value. */
static int one_element(emb_vcpu *v, const xd_emb_op *op, uint64_t to, uint64_t from)
{
    xd_emb *d = v->domain;
    uint64_t value = op->value;
    if (op->kind == XD_OP_REP_MOVS) {
        value = 0;
        int rc = emb_load(v, from, (uint8_t *)&value, op->size);
        if (rc)
            return rc;
    }
    /* The bulk copy's own look, which a trapped page did not stop before d7bff2bc00. */
    bool inside = (to & (EMB_FRAME - 1)) + op->size <= EMB_FRAME;
    if (inside && emb_look(d, d->rules.store, to) == XD_LOOK_OWNER && is_memory(d, d->rules.copy_store, to)) {
        emb_ram_store(d, to, (const uint8_t *)&value, op->size);
        return EMB_DONE;
    }
    return emb_store(v, to, (const uint8_t *)&value, op->size);
}

/*
 * Some elements. `*count` is how many are left, and receives how many were done. The last of a repeated movs goes by
 * value like a movs without repetition (x86_emulate: nr_reps == 1).
 */
static int some_elements(emb_vcpu *v, const xd_emb_op *op, uint64_t to, uint64_t from, uint64_t *count)
{
    xd_emb *d = v->domain;
    bool movs = op->kind == XD_OP_REP_MOVS;
    uint8_t down = op->down ? XD_BIT_DOWN : 0;
    uint64_t device = to, memory = from, left = *count;
    int rc = emb_enter(v, XD_PHASE_XEN);
    if (rc)
        return rc;
    *count = 1;
    if (!movs && is_device(d, to)) {
        *count = fit_device(to, op, left);
        return device_request(v, op, to, op->value, down, *count);
    }
    if (!movs || left == 1 || is_device(d, to) == is_device(d, from))
        return one_element(v, op, to, from);
    uint8_t bits = down | XD_BIT_DATA_IS_PTR;
    if (is_device(d, from)) {
        device = from;
        memory = to;
        bits |= XD_BIT_READ;
        if (emb_look(d, d->rules.store, to) == XD_LOOK_DISCARD)
            return one_element(v, op, to, from);
    }
    uint64_t fit = emb_fit_pointer(d, memory, op, left);
    if (!fit)
        return one_element(v, op, to, from);
    *count = fit_device(device, op, fit);
    return device_request(v, op, device, memory, bits, *count);
}

int emb_repeat(emb_vcpu *v, const xd_emb_op *op)
{
    uint64_t step = op->down ? (uint64_t)0 - op->size : op->size;
    int rc = 0;
    for (uint64_t i = 0; i < op->count && !rc;) {
        uint64_t count = op->count - i;
        rc = some_elements(v, op, op->gpa + i * step, op->source + i * step, &count);
        i += count;
    }
    return rc;
}
