#ifndef XD_TABLE_H
#define XD_TABLE_H

/*
 * Inline access to shadow tables and their entries; shadow.h has the layout. For C files only: cffi does not read this
 * header.
 *
 * shadow: all tables of one guest. number: that of a table in use. table: its record. entry: a shadow entry. The thread
 * that serves the guest calls these functions.
 */
#include "entry_masks.h"
#include "shadow.h"

#include <stdbool.h>

/*
 * Returns the table's level: 4 (root of a 48-bit space) to 1 (leaf). Called by gpu_memory.c and C files of this folder.
 */
static inline unsigned xd_level(const xd_table *table)
{
    return table->kind & XD_LEVEL_MASK;
}

/* Returns the table's XD_ENTRIES shadow entries. Called by gpu_memory.c and C files of this folder. */
static inline uint64_t *xd_page(const xd_shadow *shadow, uint32_t number)
{
    return shadow->pages + (uint64_t)number * XD_ENTRIES;
}

/*
 * Returns whether a shadow entry of a directory points to another shadow table. Called by gpu_memory.c and C files of
 * this folder.
 */
static inline bool xd_is_link(uint64_t entry)
{
    return (entry & (XD_PRESENT | XD_HUGE)) == XD_PRESENT;
}

/* Returns the number of the table that a link points to. Called by gpu_memory.c and C files of this folder. */
static inline uint32_t xd_child(uint64_t entry)
{
    return (uint32_t)(entry >> XD_FRAME_SHIFT);
}

/* Returns the shadow entry that points to table `number`. Called by directory.c. */
static inline uint64_t xd_link(uint32_t number)
{
    return ((uint64_t)number << XD_FRAME_SHIFT) | XD_PRESENT | XD_WRITABLE;
}

/*
 * Sets how many entries of the table are pending, and keeps shadow->pending_tables right. Called by C files of this
 * folder.
 */
static inline void xd_set_pending(xd_shadow *shadow, xd_table *table, uint16_t pending)
{
    shadow->pending_tables += (pending != 0) - (uint32_t)(table->pending != 0);
    table->pending = pending;
}

/*
 * Notes that every entry of the table was checked in this epoch, and keeps shadow->stale_tables right. Called by C
 * files of this folder.
 */
static inline void xd_set_checked(xd_shadow *shadow, xd_table *table)
{
    shadow->stale_tables -= table->epoch != shadow->epoch;
    table->epoch = shadow->epoch;
    table->flags &= (uint8_t)~XD_TABLE_UNREAD;
}

/*
 * Notes that the table's entries were not all checked: the next sync checks them, unless an update does so before.
 * Called by leaf.c and shadow.c.
 */
static inline void xd_set_unread(xd_shadow *shadow, xd_table *table)
{
    shadow->stale_tables += table->epoch == shadow->epoch;
    table->epoch = 0;
    table->flags |= XD_TABLE_UNREAD;
}

/*
 * Returns a hash of frame `gfn`, 30 bits. A guest cannot choose frames that collide, because it does not know the two
 * keys. Called by directory.c and shadow.c.
 */
static inline uint32_t xd_hash(const xd_shadow *shadow, uint64_t gfn)
{
    uint64_t hash = (gfn ^ shadow->hash_keys[0]) * shadow->hash_keys[1];
    hash = (hash ^ hash >> 32) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(hash >> 34);
}

#endif
