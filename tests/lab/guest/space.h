/*
 * Address spaces as the guest means them: a tree of tables with what each maps, beside the plain bytes that each table
 * page should hold. Neither is ever read from the tables themselves.
 */
#ifndef SPACE_H
#define SPACE_H

#include "lab.h"
#include "store.h"

#define ENTRIES 512u
#define TABLES 128u

/* What a leaf entry should map: a page address, and in its low 12 bits what follows. Written for dom0 as it is. */
#define INTENT_CACHE 0x007u /* 4*PAT + 2*PCD + PWT */
#define INTENT_WRITABLE 0x008u
#define INTENT_PRESENT 0x010u
#define INTENT_NO_RAM 0x020u /* the page is no RAM of this guest: nothing is to be mapped */

struct table {
    u32 gpa;
    u32 level; /* 4 for a root, 1 for a leaf table */
    u32 reached; /* how often live spaces reach it */
    union {
        u64 leaf[ENTRIES];
        struct table *child[ENTRIES];
    } means;
    u8 bytes[PAGE_SIZE];
};

/* A table page from the pool, not linked, all zero. Pages come in ascending order. */
struct table *table_new(u32 level);

/* Forget what an unreached table means and zero its page, with plain stores; it becomes one of `level`. */
void table_reset(struct table *table, u32 level);

/* Set `count` entries of a leaf table by one store; count * 8 is a multiple of the way's unit. */
void set_leaves(struct vcpu *self, struct table *table, u32 first, u32 count, const u64 *intents, enum store_way way);

/* Set the last entry of one leaf table and the first of the next page's by one store over the boundary. */
void set_across(struct vcpu *self, struct table *before, struct table *after, const u64 intents[2], enum store_way way);

/*
 * Set an entry of a leaf table by rep movs from registers of the device, `at` from its start, which the guest may use as
 * it likes.
 */
void set_from_registers(struct vcpu *self, struct table *table, u32 index, u64 intent, u32 at);

/* Zero `count` entries of a leaf table with rep stos. */
void clear_leaves(struct vcpu *self, struct table *table, u32 first, u32 count, int wide);

/* Make an entry of a directory point to `child`, or to nothing if that is NULL. */
void set_child(struct vcpu *self, struct table *directory, u32 index, struct table *child, enum store_way way);

/* Store random bytes to an unreached page in every way; it means nothing afterwards. */
void table_scribble(struct vcpu *self, struct table *table);

/* Tell the device of a new 4-level space, or of its end. */
void space_create(struct table *root);
void space_destroy(struct table *root);

/* A leaf's meaning, drawn at random: mostly RAM, sometimes no RAM, sometimes nothing. */
u64 random_intent(struct vcpu *self);

/* Compare the page with what it should hold; fails the run if it differs. */
void table_verify(struct vcpu *self, const struct table *table);
void table_verify_part(struct vcpu *self, const struct table *table, u32 offset, u32 bytes);

/* Write all that the live spaces should map to the intent area, with the number of tables that they reach. */
void publish_intents(struct table *const roots[VCPUS]);

#endif
