/* ioreq servers of the embedded hypervisor: xen/common/ioreq.c, xen/arch/x86/mm/p2m.c. */
#include "domain.h"
#include "slot_access.h"

#include <stdlib.h>
#include <string.h>

/* Pages. Under servers_lock. */
static emb_page *new_page(xd_emb *d)
{
    emb_page *page = calloc(1, sizeof(*page));
    void *memory = aligned_alloc(EMB_FRAME, EMB_FRAME);
    if (!page || !memory) {
        free(page);
        free(memory);
        return NULL;
    }
    memset(memory, 0, EMB_FRAME);
    *page = (emb_page){ .memory = memory, .next = d->pages, .refs = 1 };
    d->pages = page;
    return page;
}

static void put_page_locked(xd_emb *d, emb_page *page)
{
    if (--page->refs)
        return;
    emb_page **link = &d->pages;
    while (*link != page)
        link = &(*link)->next;
    *link = page->next;
    free(page->memory);
    free(page);
}

void emb_put_page(xd_emb *d, emb_page *page)
{
    pthread_mutex_lock(&d->servers_lock);
    put_page_locked(d, page);
    pthread_mutex_unlock(&d->servers_lock);
}

emb_server *emb_find_server(xd_emb *d, uint32_t id)
{
    return id < d->rules.max_servers && d->servers[id].exists ? &d->servers[id] : NULL;
}

int xd_emb_server_create(xd_emb *d)
{
    int rc = xd_emb_call(d, XD_CALL_CREATE);
    if (rc)
        return rc;
    xd_emb_pause(d);
    pthread_mutex_lock(&d->servers_lock);
    rc = -ENOSPC;
    for (uint32_t id = 0; id < d->rules.max_servers && rc < 0; id++) {
        emb_server *server = &d->servers[id];
        if (server->exists)
            continue;
        memset(server, 0, sizeof(*server));
        server->exists = true;
        server->born = d->born++;
        for (uint32_t v = 0; v < d->nr_vcpus; v++)
            server->ports[v] = emb_channel_new(d, v);
        rc = (int)id;
    }
    pthread_mutex_unlock(&d->servers_lock);
    xd_emb_unpause(d);
    return rc;
}

int xd_emb_server_destroy(xd_emb *d, uint32_t id)
{
    int rc = xd_emb_call(d, XD_CALL_DESTROY);
    if (rc)
        return rc;
    xd_emb_pause(d);
    pthread_mutex_lock(&d->p2m);
    pthread_mutex_lock(&d->servers_lock);
    emb_server *server = emb_find_server(d, id);
    if (!server) {
        rc = -ENOENT;
    } else {
        /* The owner goes, its entries stay: stores to them are retried until somebody resets their type. */
        if (d->owner == (int)id)
            __atomic_store_n(&d->owner, -1, __ATOMIC_SEQ_CST);
        if (d->default_server == (int)id)
            d->default_server = -1;
        for (uint32_t v = 0; v < d->nr_vcpus; v++)
            emb_channel_free(d, server->ports[v]);
        if (server->page)
            put_page_locked(d, server->page);
        server->exists = false;
    }
    pthread_mutex_unlock(&d->servers_lock);
    pthread_mutex_unlock(&d->p2m);
    emb_bump(d);
    xd_emb_unpause(d);
    return rc;
}

int xd_emb_server_exists(xd_emb *d, uint32_t id)
{
    pthread_mutex_lock(&d->servers_lock);
    int exists = !__atomic_load_n(&d->gone, __ATOMIC_SEQ_CST) && emb_find_server(d, id) != NULL;
    pthread_mutex_unlock(&d->servers_lock);
    return exists;
}

int xd_emb_server_state(xd_emb *d, uint32_t id, int enabled)
{
    int rc = xd_emb_call(d, XD_CALL_STATE);
    if (rc)
        return rc;
    xd_emb_pause(d);
    pthread_mutex_lock(&d->servers_lock);
    emb_server *server = emb_find_server(d, id);
    if (!server) {
        rc = -ENOENT;
    } else {
        /* The ports are told on the change to enabled alone, and only if the page is there by then. */
        if (enabled && !server->enabled && server->page)
            for (uint32_t v = 0; v < d->nr_vcpus; v++)
                xd_slot_set_port(server->page->memory, v, server->ports[v]);
        server->enabled = enabled != 0;
    }
    pthread_mutex_unlock(&d->servers_lock);
    xd_emb_unpause(d);
    return rc;
}

int xd_emb_server_default(xd_emb *d, uint32_t id)
{
    pthread_mutex_lock(&d->servers_lock);
    int rc = !d->rules.has_default_server ? -EOPNOTSUPP : emb_find_server(d, id) ? 0 : -ENOENT;
    if (!rc)
        d->default_server = (int)id;
    pthread_mutex_unlock(&d->servers_lock);
    return rc;
}

int xd_emb_slots_map(xd_emb *d, uint32_t id, char **memory)
{
    int rc = xd_emb_call(d, XD_CALL_MAP_SLOTS);
    if (rc)
        return rc;
    pthread_mutex_lock(&d->servers_lock);
    emb_server *server = emb_find_server(d, id);
    if (!server) {
        rc = -ENOENT;
    } else if (!server->page && !(server->page = new_page(d))) {
        rc = -ENOMEM;
    } else {
        server->page->refs++;
        *memory = server->page->memory;
    }
    pthread_mutex_unlock(&d->servers_lock);
    return rc;
}

int xd_emb_slots_unmap(xd_emb *d, char *memory)
{
    pthread_mutex_lock(&d->servers_lock);
    emb_page *page = d->pages;
    while (page && page->memory != memory)
        page = page->next;
    if (page)
        put_page_locked(d, page);
    pthread_mutex_unlock(&d->servers_lock);
    return page ? 0 : -EINVAL;
}

/* The claim: ioreq_server_map_mem_type, p2m_set_ioreq_server. */
int xd_emb_claim(xd_emb *d, uint32_t id, uint32_t hvmmem, uint32_t flags)
{
    int rc = xd_emb_call(d, XD_CALL_MAP_MEM_TYPE);
    if (rc)
        return rc;
    if (!d->rules.has_claim)
        return -EOPNOTSUPP;
    if (hvmmem != 4 || (flags & ~2u))
        return -EINVAL;
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

/* The server to which an access goes by its address, or -1: ioreq_server_select. */
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

/* Put a request into the vCPU's slot: ioreq_send, without the event. -EFAULT where Xen would call it unhandleable. */
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
    v->posted_at = __atomic_load_n(&v->wake, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&d->servers_lock);
    int rc = post_locked(v, id, request);
    pthread_mutex_unlock(&d->servers_lock);
    if (!rc)
        emb_count(d, XD_EMB_TRAPPED);
    return rc;
}

/* ioreq_signal_mapcache_invalidate: to each enabled server; one that cannot be told is left out. */
int emb_post_invalidate(emb_vcpu *v)
{
    xd_emb *d = v->domain;
    xd_ioreq request = { .size = 4, .data = ~0ull, .type = XD_IOREQ_INVALIDATE };
    int rc = 0;
    v->posted_at = __atomic_load_n(&v->wake, __ATOMIC_SEQ_CST);
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
