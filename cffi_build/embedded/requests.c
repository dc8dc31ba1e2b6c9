#include "requests.h"

#include "slot_access.h"
#include "slot_page.h"
#include "wait.h"

int emb_select(xd_emb *d, uint32_t kind, uint64_t first, uint64_t last)
{
    int best = -1;
    pthread_mutex_lock(&d->servers_lock);
    for (int id = (int)d->rules.max_servers - 1; id >= 0; id--) {
        const emb_server *s = &d->servers[id];
        if (!s->exists || !s->enabled || id == d->default_server ||
            emb_ranges_find(&s->ranges[kind], first, last) < 0)
            continue;
        if (best < 0 || (d->rules.newest_first && s->born > d->servers[best].born))
            best = id;
        if (!d->rules.newest_first)
            break;
    }
    if (best < 0 && d->default_server >= 0 && d->servers[d->default_server].enabled)
        best = d->default_server;
    pthread_mutex_unlock(&d->servers_lock);
    return best;
}

/* emb_post under servers_lock. */
static int post_locked(emb_vcpu *v, uint32_t id, const xd_ioreq *request)
{
    xd_emb *d = v->domain;
    emb_server *s = &d->servers[id];
    if (!s->exists)
        return -EFAULT;
    if (!s->page) {
        xd_emb_crash(d, "a request for a server whose page nobody ever mapped: Xen itself would fault");
        return -ENOTRECOVERABLE;
    }
    void *page = s->page->memory;
    if (load_port(slot_of(page, v->id)) != s->ports[v->id] || xd_slot_post(page, v->id, request))
        return -EFAULT;
    s->page->refs++;
    v->pending[v->nr_pending++] = (emb_pending){
        .page = s->page, .server = id, .port = s->ports[v->id], .born = s->born
    };
    return 0;
}

int emb_post(emb_vcpu *v, uint32_t id, const xd_ioreq *request)
{
    xd_emb *d = v->domain;
    v->posted_at = emb_events_so_far(v);
    pthread_mutex_lock(&d->servers_lock);
    int rc = post_locked(v, id, request);
    pthread_mutex_unlock(&d->servers_lock);
    if (!rc)
        emb_count(d, XD_EMB_TRAPPED);
    return rc;
}

/* ioreq_signal_mapcache_invalidate */
int emb_post_invalidate(emb_vcpu *v)
{
    xd_emb *d = v->domain;
    xd_ioreq request = { .size = 4, .data = ~0ull, .type = XD_IOREQ_INVALIDATE };
    int rc = 0;
    v->posted_at = emb_events_so_far(v);
    pthread_mutex_lock(&d->servers_lock);
    for (int id = (int)d->rules.max_servers - 1; id >= 0 && rc != -ENOTRECOVERABLE; id--) {
        if (!d->servers[id].exists || !d->servers[id].enabled)
            continue;
        rc = post_locked(v, (uint32_t)id, &request);
        if (!rc)
            emb_count(d, XD_EMB_INVALIDATES);
    }
    pthread_mutex_unlock(&d->servers_lock);
    return rc == -ENOTRECOVERABLE ? rc : 0;
}

int emb_request_and_wait(emb_vcpu *v, uint32_t server, const xd_ioreq *request, uint64_t *data)
{
    int rc = emb_post(v, server, request);
    return rc ? rc : emb_wait_for_answers(v, data);
}
