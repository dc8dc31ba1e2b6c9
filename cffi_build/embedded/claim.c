#include "claim.h"

#include "calls.h"
#include "p2m.h"
#include "state.h"

int xd_emb_claim(xd_emb *d, uint32_t id, uint32_t hvmmem, uint32_t flags)
{
    int rc = xd_emb_call(d, XD_CALL_MAP_MEM_TYPE);
    if (rc)
        return rc;
    if (!d->rules.has_claim)
        return -EOPNOTSUPP;
    if (hvmmem != 4 || (flags & ~2u)) /* which libxendevicemodel says, before Xen is asked */
        return -EINVAL;
    if (d->rules.shadow_paging)
        return -EOPNOTSUPP;
    pthread_mutex_lock(&d->p2m);
    pthread_mutex_lock(&d->servers_lock);
    if (!emb_find_server(d, id)) {
        rc = -ENOENT;
    } else if (flags) {
        /* Entries of an owner that went without releasing would be taken for the new owner's. */
        if (d->owner >= 0 || d->entries)
            rc = -EBUSY;
        else
            __atomic_store_n(&d->owner, (int)id, __ATOMIC_SEQ_CST);
    } else if (d->owner != (int)id) {
        rc = -EINVAL;
    } else {
        __atomic_store_n(&d->owner, -1, __ATOMIC_SEQ_CST);
    }
    pthread_mutex_unlock(&d->servers_lock);
    if (!rc && !flags)
        for (uint64_t gfn = 0; gfn < d->frames && d->entries; gfn++)
            if (d->types[gfn] == XD_P2M_IOREQ_SERVER)
                emb_change_type(d, gfn, XD_P2M_RAM_RW);
    emb_types_changed(d);
    pthread_mutex_unlock(&d->p2m);
    return rc;
}

int xd_emb_owner(xd_emb *d)
{
    return __atomic_load_n(&d->owner, __ATOMIC_SEQ_CST);
}
