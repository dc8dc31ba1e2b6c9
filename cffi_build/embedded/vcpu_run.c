#include "vcpu_run.h"

#include "hypercall.h"
#include "vcpu_insn.h"
#include "phases.h"
#include "ports.h"
#include "vcpu_repeat.h"
#include "vcpu_rmw.h"
#include "wait.h"

#include <string.h>

static bool is_width(uint32_t size)
{
    return size == 1 || size == 2 || size == 4 || size == 8;
}

static const uint8_t *at_address(uint64_t address)
{
    return (const uint8_t *)(uintptr_t)address;
}

static void count_losses(emb_vcpu *v)
{
    if (v->dropped)
        emb_count(v->domain, XD_EMB_DROPPED_STORES);
    if (v->discarded)
        emb_count(v->domain, XD_EMB_DISCARDED_STORES);
}

static int one_store(emb_vcpu *v, uint64_t gpa, const uint8_t *from, uint32_t size)
{
    v->dropped = v->discarded = false;
    int rc = emb_store(v, gpa, from, size);
    count_losses(v);
    return rc;
}

static int fill(emb_vcpu *v, const xd_emb_op *op)
{
    int rc = 0;
    for (uint64_t i = 0; i < op->count && !rc; i++)
        rc = one_store(v, emb_up(op->gpa, i * op->size), (const uint8_t *)&op->value, op->size);
    return rc;
}

static int copy(emb_vcpu *v, const xd_emb_op *op)
{
    const uint8_t *from = at_address(op->bytes);
    int rc = 0;
    for (uint64_t at = 0; at < op->count && !rc;) {
        uint32_t piece = 8;
        while (piece > op->count - at)
            piece >>= 1;
        rc = one_store(v, emb_up(op->gpa, at), from + at, piece);
        at += piece;
    }
    return rc;
}

static int repeat(emb_vcpu *v, const xd_emb_op *op)
{
    v->dropped = v->discarded = false;
    int rc = emb_repeat(v, op);
    count_losses(v);
    return rc;
}

static int read_modify_write(emb_vcpu *v, xd_emb_op *op)
{
    v->dropped = v->discarded = false;
    int rc = emb_rmw(v, op);
    count_losses(v);
    return rc;
}

static int port_string(emb_vcpu *v, const xd_emb_op *op)
{
    v->dropped = v->discarded = false;
    int rc = emb_port_string(v, op);
    count_losses(v);
    return rc;
}

static bool is_port(const xd_emb_op *op)
{
    return op->size <= 4 && op->port <= UINT16_MAX;
}

static int run_one(emb_vcpu *v, xd_emb_op *op)
{
    bool any_size = op->kind == XD_OP_STORE || op->kind == XD_OP_COPY || op->kind == XD_OP_REMOVE ||
                    op->kind == XD_OP_ADD || op->kind == XD_OP_HYPERCALL;
    if (!any_size && !is_width(op->size))
        return -EINVAL;
    switch (op->kind) {
    case XD_OP_STORE:
        if (op->bytes)
            return op->size && op->size <= 64 ? one_store(v, op->gpa, at_address(op->bytes), op->size) : -EINVAL;
        return is_width(op->size) ? one_store(v, op->gpa, (const uint8_t *)&op->value, op->size) : -EINVAL;
    case XD_OP_LOAD:
        op->result = 0;
        return emb_load(v, op->gpa, (uint8_t *)&op->result, op->size);
    case XD_OP_FILL:
        return fill(v, op);
    case XD_OP_COPY:
        return copy(v, op);
    case XD_OP_REP_STOS:
    case XD_OP_REP_MOVS:
        return repeat(v, op);
    case XD_OP_XCHG:
    case XD_OP_CMPXCHG:
        return read_modify_write(v, op);
    case XD_OP_MODIFY:
        return op->modify < XD_MODIFY_KINDS ? read_modify_write(v, op) : -EINVAL;
    case XD_OP_HYPERCALL:
        return op->bytes ? emb_hypercall_output(v, op) : -EINVAL;
    case XD_OP_OUT:
    case XD_OP_IN:
        return is_port(op) ? emb_port_io(v, op) : -EINVAL;
    case XD_OP_REP_OUTS:
    case XD_OP_REP_INS:
        return is_port(op) ? port_string(v, op) : -EINVAL;
    case XD_OP_REMOVE:
        return emb_remove_frames(v, op);
    case XD_OP_ADD:
        return emb_add_frames(v, op);
    default:
        return -EINVAL;
    }
}

int xd_emb_run(xd_emb *d, uint32_t vcpu, xd_emb_op *ops, int count, int *done)
{
    if (vcpu >= d->nr_vcpus)
        return -EINVAL;
    emb_vcpu *v = &d->vcpus[vcpu];
    int rc = 0, i = 0;
    pthread_mutex_lock(&v->exec);
    rc = emb_why_stopped(d);
    for (; i < count && !rc; i++)
        rc = run_one(v, &ops[i]);
    emb_drop_pending(v);
    emb_leave(v, XD_PHASE_OUT);
    pthread_mutex_unlock(&v->exec);
    if (rc == -EFAULT)
        emb_count(d, XD_EMB_FAULTS);
    if (done)
        *done = rc ? i - 1 + (i == 0) : i;
    return rc;
}
