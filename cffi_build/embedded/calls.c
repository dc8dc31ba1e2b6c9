#include "calls.h"

#include "state.h"

int xd_emb_call(xd_emb *d, int kind)
{
    int rc = 0;
    if (__atomic_load_n(&d->fail_mask, __ATOMIC_ACQUIRE) & (1u << kind)) {
        pthread_mutex_lock(&d->gate);
        if (++d->fail_count == d->fail_at)
            rc = -d->fail_error;
        pthread_mutex_unlock(&d->gate);
        if (rc == -ESRCH)
            xd_emb_destroy(d);
    }
    return __atomic_load_n(&d->gone, __ATOMIC_SEQ_CST) ? -ESRCH : rc;
}

uint64_t xd_emb_fail(xd_emb *d, uint32_t mask, uint64_t n, int error)
{
    pthread_mutex_lock(&d->gate);
    uint64_t counted = d->fail_count;
    d->fail_count = 0;
    d->fail_at = n;
    d->fail_error = error;
    __atomic_store_n(&d->fail_mask, mask, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&d->gate);
    return counted;
}
