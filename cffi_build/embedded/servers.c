/* xen/common/ioreq.c: ioreq servers. */
#include "servers.h"

#include "calls.h"
#include "p2m.h"
#include "sim_share.h"
#include "slot_page.h"
#include "state.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static emb_page *new_page(xd_emb *d)
{
    emb_page *page = calloc(1, sizeof(*page));
    int fd;
    void *memory = page ? emb_new_shared("xengt-dm slots", EMB_FRAME, &fd) : NULL;
    if (!memory) {
        free(page);
        return NULL;
    }
    *page = (emb_page){ .memory = memory, .fd = fd, .next = d->pages, .refs = 1 };
    d->pages = page;
    return page;
}

void emb_free_page(emb_page *page)
{
    munmap(page->memory, EMB_FRAME);
    close(page->fd);
    free(page);
}

static void put_page_locked(xd_emb *d, emb_page *page)
{
    if (--page->refs)
        return;
    emb_page **link = &d->pages;
    while (*link != page)
        link = &(*link)->next;
    *link = page->next;
    emb_free_page(page);
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
