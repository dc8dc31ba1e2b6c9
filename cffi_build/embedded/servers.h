#ifndef XD_EMB_SERVERS_H
#define XD_EMB_SERVERS_H
#include "domain.h"

#include <stdint.h>

/*
 * ioreq servers: their life and their pages of slots. `server` is a server's id; domain, d: see domain.h. Each xd_emb_*
 * function stands for a hypercall of the device model, and returns -ENOENT without such a server. Any thread.
 */

/*
 * Creates a server, disabled. Returns its id, the lowest that is free, or -ENOSPC. Called by
 * hypervisor/embedded/port.py.
 */
int xd_emb_server_create(xd_emb *domain);

/*
 * Destroys a server. Its claim goes, the trapped pages keep their type. Pauses the domain. Returns 0 or -errno. Called
 * by hypervisor/embedded/port.py.
 */
int xd_emb_server_destroy(xd_emb *domain, uint32_t server);

/*
 * Returns 1 if there is such a server and the domain is not destroyed; else 0. Called by hypervisor/embedded/port.py.
 */
int xd_emb_server_exists(xd_emb *domain, uint32_t server);

/*
 * Enables a server, or disables it (`enabled` is 0). Pauses the domain, even if nothing changes. Returns 0 or -errno.
 * Called by hypervisor/embedded/port.py.
 */
int xd_emb_server_state(xd_emb *domain, uint32_t server, int enabled);

/*
 * Lets a server have what no range claims (before 4.12). No hypercall. Returns 0, or -EOPNOTSUPP where Xen has no such
 * thing. Called by hypervisor/embedded/domain.py.
 */
int xd_emb_server_default(xd_emb *domain, uint32_t server);

/*
 * Maps a server's page of slots; *page receives its address. The page outlives the server while it is mapped. Returns 0
 * or -errno. Called by hypervisor/embedded/port.py.
 */
int xd_emb_slots_map(xd_emb *domain, uint32_t server, char **page);

/* Undoes xd_emb_slots_map. Returns 0, or -EINVAL if `page` is no such page. Called by hypervisor/embedded/port.py. */
int xd_emb_slots_unmap(xd_emb *domain, char *page);

#ifndef XD_CFFI
typedef struct emb_server emb_server;
typedef struct emb_page emb_page;

/*
 * Returns the server whose id is `id`, or NULL. The caller holds servers_lock for as long as it uses the server. Called
 * by claim.c and ranges.c.
 */
emb_server *emb_find_server(xd_emb *d, uint32_t id);

/* Frees a page of slots, `page`, that is in no list. Called by domain.c. */
void emb_free_page(emb_page *page);

/* Drops a reference to a page of slots, `page`, and frees it with the last. Takes servers_lock. Called by wait.c. */
void emb_put_page(xd_emb *d, emb_page *page);
#endif

#endif
