/*
 * Ports: handle_pio in xen/arch/x86/hvm/io.c; hvm_access_cf8 and arch_ioreq_server_get_type_addr in
 * xen/arch/x86/hvm/ioreq.c; hvmemul_rep_ins and hvmemul_rep_outs in xen/arch/x86/hvm/emulate.c; INS and OUTS in
 * xen/arch/x86/x86_emulate/x86_emulate.c.
 *
 * PCI configuration space is reached by ports alone: 0xcf8 latches an address, an access to 0xcfc to 0xcff becomes a
 * configuration cycle. Xen decodes no memory-mapped configuration space (ECAM) for a guest: an access there goes by
 * range, like any access that finds no memory.
 */
#include "ports.h"

#include "vcpu_insn.h"
#include "memory.h"
#include "phases.h"
#include "vcpu_repeat.h"
#include "requests.h"

enum { CF8 = 0xcf8, CFC = 0xcfc };

static uint64_t mask_of(const xd_emb_op *op)
{
    return (1ull << op->size * 8) - 1;
}

/* Only a write of all four bytes latches an address; the access then goes on like any other. */
static bool latches(const xd_emb_op *op)
{
    return op->port == CF8 && op->size == 4;
}

static void latch(xd_emb *d, uint32_t address)
{
    pthread_mutex_lock(&d->servers_lock);
    d->cf8 = address;
    pthread_mutex_unlock(&d->servers_lock);
}

/*
 * Returns the server of an access to a port, or -1. The request of a configuration cycle changes its type and address.
 */
static int select_by_port(xd_emb *d, xd_ioreq *request)
{
    uint64_t port = request->addr;
    pthread_mutex_lock(&d->servers_lock);
    uint32_t cf8 = d->cf8;
    int default_server = d->default_server;
    pthread_mutex_unlock(&d->servers_lock);
    if ((port & ~3ull) != CFC || !(cf8 >> 31))
        return emb_select(d, XD_RANGE_PORT, port, port + request->size - 1);
    uint64_t sbdf = cf8 >> 8 & 0xffff;
    int server = emb_select(d, XD_RANGE_PCI, sbdf, sbdf);
    /* A default server sees the ports, as QEMU did. */
    if (server >= 0 && server != default_server) {
        request->type = XD_IOREQ_PCI_CONFIG;
        request->addr = sbdf << 32 | (cf8 & 0xfc) | (port & 3);
    }
    return server;
}

/* One access by value, with the vCPU in XEN. -EFAULT if Xen could not send it. */
static int access_port(emb_vcpu *v, const xd_emb_op *op, bool read, uint64_t *value)
{
    xd_ioreq request = { .addr = op->port, .data = read ? 0 : *value & mask_of(op), .count = 1, .size = op->size,
                         .type = XD_IOREQ_PIO, .bits = read ? XD_BIT_READ : 0 };
    if (!read && latches(op))
        latch(v->domain, (uint32_t)*value);
    int server = select_by_port(v->domain, &request);
    uint64_t data = ~0ull;
    int rc = server < 0 ? 0 : emb_request_and_wait(v, (uint32_t)server, &request, &data);
    if (!rc && read)
        *value = data & mask_of(op);
    return rc;
}

/*
 * Facts: for an access that it cannot send, because the device model has spoilt the slot, the emulator gives the guest
 * a fault; but a plain IN or OUT goes past the emulator, and handle_pio crashes the domain. We do as Xen does.
 */
int emb_port_io(emb_vcpu *v, xd_emb_op *op)
{
    bool read = op->kind == XD_OP_IN;
    uint64_t value = op->value;
    int rc = emb_enter(v, XD_PHASE_XEN);
    if (rc)
        return rc;
    rc = access_port(v, op, read, &value);
    if (rc == -EFAULT) {
        xd_emb_crash(v->domain, "an access to a port that could not be sent to its server");
        return emb_why_stopped(v->domain);
    }
    if (!rc && read)
        op->result = value;
    return rc;
}

/* One element by value: what Xen does with the last of them, and with one that is no memory. */
static int one_element(emb_vcpu *v, const xd_emb_op *op, uint64_t gpa)
{
    bool read = op->kind == XD_OP_REP_INS;
    uint64_t value = 0;
    int rc = read ? 0 : emb_load(v, gpa, (uint8_t *)&value, op->size);
    if (!rc)
        rc = emb_enter(v, XD_PHASE_XEN);
    if (!rc)
        rc = access_port(v, op, read, &value);
    return rc || !read ? rc : emb_store_input(v, gpa, (const uint8_t *)&value, op->size);
}

/* Whether Xen's look at the memory's type lets it use a pointer at all. */
static bool is_device(const xd_emb *d, uint64_t gpa)
{
    uint32_t type = emb_type(d, gpa >> EMB_SHIFT);
    return type == XD_P2M_MMIO_DM || type == XD_P2M_MMIO_DIRECT;
}

/* Some elements. `*count` is how many are left, and receives how many were done. */
static int some_elements(emb_vcpu *v, const xd_emb_op *op, uint64_t gpa, uint64_t *count)
{
    xd_emb *d = v->domain;
    bool read = op->kind == XD_OP_REP_INS;
    int rc = emb_enter(v, XD_PHASE_XEN);
    if (rc)
        return rc;
    uint64_t fit = *count == 1 || is_device(d, gpa) ? 0 : emb_fit_pointer(d, gpa, op, *count);
    if (fit && latches(op)) {
        /* A handler inside Xen sees each element alone. */
        uint32_t address = 0;
        fit = 1;
        emb_ram_load(d, gpa, (uint8_t *)&address, op->size);
        if (!read)
            latch(d, address);
    }
    *count = fit ? fit : 1;
    if (!fit)
        return one_element(v, op, gpa);
    xd_ioreq request = { .addr = op->port, .data = gpa, .count = (uint32_t)fit, .size = op->size };
    request.type = XD_IOREQ_PIO;
    request.bits = (uint8_t)(XD_BIT_DATA_IS_PTR | (read ? XD_BIT_READ : 0) | (op->down ? XD_BIT_DOWN : 0));
    int server = select_by_port(d, &request);
    uint64_t ignored;
    if (server >= 0)
        return emb_request_and_wait(v, (uint32_t)server, &request, &ignored);
    if (read)
        emb_store_all_ones(v, op, gpa, fit);
    return 0;
}

int emb_port_string(emb_vcpu *v, const xd_emb_op *op)
{
    uint64_t step = op->down ? (uint64_t)0 - op->size : op->size;
    uint64_t gpa = op->kind == XD_OP_REP_INS ? op->target : op->source;
    int rc = 0;
    for (uint64_t i = 0; i < op->count && !rc;) {
        uint64_t count = op->count - i;
        rc = some_elements(v, op, gpa + i * step, &count);
        i += count;
    }
    return rc;
}
