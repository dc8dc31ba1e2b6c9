/*
 * Sources: sh_page_fault in xen/arch/x86/mm/shadow/multi.c (emulate_readonly); hvm_emulate_read, hvm_emulate_write,
 * hvm_emulate_cmpxchg, emulate_map_dest and emulate_gva_to_mfn. The latter are in multi.c and common.c of that folder in
 * the 2014 series, b4986813c5, and in its hvm.c in 4.17, where they do the same.
 */
#include "shadow_paging.h"

#include "memory.h"
#include "phases.h"

int emb_shadow_store(const emb_access *a)
{
    xd_emb *d = a->v->domain;
    uint32_t look = XD_LOOK_DIRECT, size = 0;
    emb_count(d, XD_EMB_PASSES);
    for (uint32_t i = 0; i < a->nr_parts; i++)
        size += a->parts[i].size;
    if (size > 8) /* a vector store, and this emulator has no registers for it: hvm_shadow_emulator_ops, get_fpu */
        return EMB_RETRY;
    emb_point(a->v, XD_POINT_COPY);
    /* The page of the first byte is asked first; what it says holds for the bytes in the other page, too. */
    for (uint32_t i = 0; i < a->nr_parts && look == XD_LOOK_DIRECT; i++)
        look = emb_look(d, d->rules.shadow_write, a->parts[i].gpa);
    if (look == XD_LOOK_DISCARD) {
        a->v->discarded = true;
        return EMB_DONE;
    }
    if (look != XD_LOOK_DIRECT)
        return EMB_RETRY;
    for (uint32_t i = 0; i < a->nr_parts; i++)
        emb_ram_store(d, a->parts[i].gpa, a->bytes + a->parts[i].offset, a->parts[i].size);
    return EMB_DONE;
}

int emb_shadow_load(const emb_access *a, uint8_t *to)
{
    const xd_emb *d = a->v->domain;
    for (uint32_t i = 0; i < a->nr_parts; i++) {
        const emb_part *p = &a->parts[i];
        if (emb_look(d, d->rules.copy_load, p->gpa) != XD_LOOK_DIRECT)
            return EMB_RETRY;
        emb_ram_load(d, p->gpa, to + p->offset, p->size);
    }
    return EMB_DONE;
}
