#include "hypercall.h"

#include "vcpu_insn.h"
#include "memory.h"
#include "p2m.h"
#include "phases.h"
#include "requests.h"
#include "wait.h"

/*
 * What a hypercall hands back to the guest: hvm_copy_to_guest, page by page. A page that it cannot copy to ends it with
 * EFAULT, the pages before that have theirs.
 */
int emb_hypercall_output(emb_vcpu *v, xd_emb_op *op)
{
    xd_emb *d = v->domain;
    const uint8_t *from = (const uint8_t *)(uintptr_t)op->bytes;
    emb_access a = { .v = v, .write = true };
    int rc = emb_enter(v, XD_PHASE_XEN);
    if (rc)
        return rc;
    emb_split(&a, op->gpa, op->size);
    op->result = 0;
    for (uint32_t i = 0; i < a.nr_parts && !op->result; i++) {
        const emb_part *p = &a.parts[i];
        uint32_t look = emb_look(d, d->rules.copy_store, p->gpa);
        if (look == XD_LOOK_DIRECT)
            emb_ram_store(d, p->gpa, from + p->offset, p->size);
        else if (look != XD_LOOK_DISCARD)
            op->result = EFAULT;
    }
    return 0;
}

/* The end of a hypercall that took frames from the guest: INVALIDATE, and its answers. */
static int tell_device_models(emb_vcpu *v)
{
    uint64_t data;
    int rc = emb_post_invalidate(v);
    return rc || !v->nr_pending ? rc : emb_wait_for_answers(v, &data);
}

int emb_remove_frames(emb_vcpu *v, const xd_emb_op *op)
{
    int rc = emb_enter(v, XD_PHASE_XEN);
    if (!rc)
        rc = emb_remove(v->domain, op->gfn, op->count);
    return rc > 0 ? tell_device_models(v) : rc;
}

int emb_add_frames(emb_vcpu *v, const xd_emb_op *op)
{
    /* A frame that is RAM is removed first, so that its old content is gone. */
    int rc = emb_remove_frames(v, op);
    return rc ? rc : xd_emb_set_type(v->domain, op->gfn, op->count, XD_P2M_RAM_RW);
}
