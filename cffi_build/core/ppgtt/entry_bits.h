#ifndef XD_ENTRY_BITS_H
#define XD_ENTRY_BITS_H

/* For the C side only: the masks that follow from entry.h, and how a shadow entry is read and made. */
#include "entry.h"
#include "shadow.h"
#include "translate.h"

#include <stdbool.h>

#define XD_MASK(bit) (UINT64_C(1) << (bit))
#define XD_PRESENT XD_MASK(XD_BIT_PRESENT)
#define XD_WRITABLE XD_MASK(XD_BIT_WRITABLE)
#define XD_HUGE XD_MASK(XD_BIT_HUGE)
#define XD_IPS XD_MASK(XD_BIT_IPS)
#define XD_ADDRESS(low) ((XD_MASK(XD_ADDRESS_BITS) - 1) & ~(XD_MASK(low) - 1))
#define XD_ADDRESS_4K XD_ADDRESS(12)
#define XD_ADDRESS_64K XD_ADDRESS(16)
#define XD_ADDRESS_2M XD_ADDRESS(21)
/* All that a 2 MiB leaf does. */
#define XD_LEAF_2M                                                                                                     \
    (XD_ADDRESS_2M | XD_PRESENT | XD_HUGE | XD_WRITABLE | XD_MASK(XD_BIT_PWT) | XD_MASK(XD_BIT_PCD) |                  \
     XD_MASK(XD_BIT_PAT_HUGE))

static inline uint64_t xd_frame(uint64_t entry)
{
    return (entry & XD_ADDRESS_4K) >> XD_FRAME_SHIFT;
}

static inline unsigned xd_level(const xd_table *table)
{
    return table->kind & XD_LEVEL_MASK;
}

static inline uint64_t *xd_page(const xd_shadow *shadow, uint32_t number)
{
    return shadow->pages + (uint64_t)number * XD_ENTRIES;
}

/* Of a directory's shadow entry: does it point to another shadow, and to which. */
static inline bool xd_is_link(uint64_t entry)
{
    return (entry & (XD_PRESENT | XD_HUGE)) == XD_PRESENT;
}

static inline uint32_t xd_child(uint64_t entry)
{
    return (uint32_t)(entry >> XD_FRAME_SHIFT);
}

static inline uint64_t xd_link(uint32_t number)
{
    return ((uint64_t)number << XD_FRAME_SHIFT) | XD_PRESENT | XD_WRITABLE;
}

/* The leaf bits of a 2 MiB entry, as its 4 KiB parts have them: PAT moves from bit 12 to bit 7. */
static inline uint64_t xd_attributes_of_2m(uint64_t entry)
{
    uint64_t kept = entry & (XD_WRITABLE | XD_MASK(XD_BIT_PWT) | XD_MASK(XD_BIT_PCD));
    return kept | (entry & XD_MASK(XD_BIT_PAT_HUGE) ? XD_MASK(XD_BIT_PAT) : 0);
}

void xd_clear_blank(xd_shadow *shadow, uint32_t number);
/* The references that entries of a directory hold. */
void xd_link_to(xd_shadow *shadow, uint32_t parent, uint32_t child);
void xd_unlink(xd_shadow *shadow, uint32_t parent, uint32_t child);

static inline void xd_set_waiting(xd_shadow *shadow, xd_table *table, uint16_t waiting)
{
    shadow->waiting_tables += (waiting != 0) - (uint32_t)(table->waiting != 0);
    table->waiting = waiting;
}

static inline void xd_set_current(xd_shadow *shadow, xd_table *table)
{
    shadow->stale_tables -= table->era != shadow->era;
    table->era = shadow->era;
}

#endif
