#ifndef XD_EMB_SERVERS_H
#define XD_EMB_SERVERS_H
#include "domain.h"

#include <stdint.h>

/*
 * ioreq servers: their life and their pages of slots. `server` is a server's id. Each stands for a hypercall of the
 * device model, and returns -ENOENT without such a server.
 */

/* Create a server, disabled. Returns its id, the lowest that is free, or -ENOSPC. */
int xd_emb_server_create(xd_emb *domain);

/* Destroy a server. Its claim goes, the trapped pages keep their type. Pauses the domain. */
int xd_emb_server_destroy(xd_emb *domain, uint32_t server);

/* Returns 1 if there is such a server and the domain is not destroyed; else 0. */
int xd_emb_server_exists(xd_emb *domain, uint32_t server);

/* Enable (not 0) or disable (0) a server. Pauses the domain, even if nothing changes. */
int xd_emb_server_state(xd_emb *domain, uint32_t server, int enabled);

/*
 * Let a server have what no range claims (before 4.12). No hypercall. Returns -EOPNOTSUPP where Xen has no such thing.
 */
int xd_emb_server_default(xd_emb *domain, uint32_t server);

/* Map a server's page of slots; *page receives its address. The page outlives the server while it is mapped. */
int xd_emb_slots_map(xd_emb *domain, uint32_t server, char **page);

/* Undo xd_emb_slots_map. Returns 0, or -EINVAL if `page` is no such page. */
int xd_emb_slots_unmap(xd_emb *domain, char *page);

#ifndef XD_CFFI
typedef struct emb_server emb_server;
typedef struct emb_page emb_page;

/* Returns the server of an id, or NULL. The caller holds servers_lock for as long as it uses the server. */
emb_server *emb_find_server(xd_emb *d, uint32_t id);

/* Free a page of slots that is in no list. */
void emb_free_page(emb_page *page);

/* Drop a reference to a page of slots, and free it with the last. Takes servers_lock. */
void emb_put_page(xd_emb *d, emb_page *page);
#endif

#endif
