/* Slices of directory updates, put together from directory.c and leaf.c so that a slice takes two calls at most. */
#include "update.h"
#include "leaf.h"
#include "table.h"

#include <errno.h>

/* Links the entries of a slice; its tables, if any, are created. */
static void link_entries(xd_shadow *shadow, xd_update *update)
{
    xd_directory_link(shadow, update->number, update->entries, update->first, update->last, update->missing,
                      update->count, &update->need);
}

/* Lists the frames of missing tables that have another table. Returns how many. */
static uint32_t list_shared(xd_update *update)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < update->count; i++)
        if (!update->missing[i].first_of_frame)
            update->gfns[count++] = update->missing[i].gfn;
    return count;
}

/* Returns whether the frame of a missing table has unsynced tables, which the caller could not have protected. */
static bool is_unsynced(const xd_shadow *shadow, const xd_missing_table *missing)
{
    uint32_t first = xd_first_of_frame(shadow, missing->gfn);
    return first && shadow->tables[first].flags & XD_TABLE_UNSYNCED;
}

/* Creates the missing tables. */
static int create(xd_shadow *shadow, xd_update *update)
{
    update->directories = (update->missing[0].kind & XD_LEVEL_MASK) > 1;
    update->born = !update->directories && shadow->relaxed;
    for (uint32_t i = 0; i < update->count; i++)
        if (is_unsynced(shadow, &update->missing[i])) {
            update->missing[i].refused = 1;
            shadow->counters->unprotectable_entries++;
        }
    update->to_protect = xd_create_tables(shadow, update->missing, update->count, update->numbers, update->gfns);
    shadow->counters->protected_pages += update->to_protect;
    return XD_UPDATE_CREATED;
}

void xd_update_root(xd_shadow *shadow, xd_update *update, uint64_t gfn, uint32_t kind)
{
    update->missing[0] = (xd_missing_table){.gfn = gfn, .kind = kind};
    update->count = 1;
    create(shadow, update);
}

int xd_update_begin(xd_shadow *shadow, xd_update *update, uint32_t number, uint32_t first, uint32_t last,
                    uint32_t flags)
{
    update->number = number;
    update->first = first;
    update->last = last;
    update->count = update->to_protect = update->need.count = 0;
    int error = xd_directory_read(shadow, number, update->entries);
    if (error == -EAGAIN) {
        xd_need_frame(&update->need, shadow->tables[number].gfn);
        return XD_UPDATE_QUERY;
    }
    if (error)
        return XD_UPDATE_GONE;
    uint32_t splits, shared;
    int count = xd_directory_missing(shadow, number, update->entries, first, last, update->missing, &splits, &shared,
                                     &update->need);
    if (count < 0)
        return XD_UPDATE_QUERY;
    update->count = (uint32_t)count;
    update->needed = update->count + splits;
    if (update->needed > shadow->max_tables - shadow->live && !(flags & XD_UPDATE_WITHOUT_ROOM))
        return XD_UPDATE_NO_ROOM;
    if (flags & XD_UPDATE_ONLY_ROOM)
        return XD_UPDATE_DONE;
    if (!count) {
        link_entries(shadow, update);
        return XD_UPDATE_DONE;
    }
    if (shared && (shadow->unsynced_tables || shadow->stale_tables) && !(flags & XD_UPDATE_PROTECTED_AGAIN)) {
        update->to_protect = list_shared(update);
        return XD_UPDATE_SHARED;
    }
    return create(shadow, update);
}

/* Marks the created tables of a frame as unsynced from the start: they map nothing until they are read. */
static void born_unsynced(xd_shadow *shadow, uint64_t gfn)
{
    xd_set_unsynced(shadow, gfn, 1);
    shadow->counters->unsynced_births++;
    for (uint32_t number = xd_first_of_frame(shadow, gfn); number; number = shadow->tables[number].next_of_frame) {
        xd_clear_blank(shadow, number);
        xd_set_checked(shadow, &shadow->tables[number]);
        shadow->tables[number].flags |= XD_TABLE_CHANGED; /* to be unsynced has cost nothing, so not for nothing */
    }
}

void xd_update_born(xd_shadow *shadow, xd_update *update)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < update->to_protect; i++) {
        if (update->errors[i] || shadow->unsynced_tables >= shadow->max_unsynced) {
            update->gfns[count++] = update->gfns[i];
            continue;
        }
        born_unsynced(shadow, update->gfns[i]);
    }
    shadow->counters->protected_pages -= update->to_protect - count;
    update->to_protect = count;
}

/* Returns whether the protector refused a frame. */
static bool is_refused(const xd_update *update, uint64_t gfn)
{
    for (uint32_t i = 0; i < update->to_protect; i++)
        if (update->errors[i] && update->gfns[i] == gfn)
            return true;
    return false;
}

void xd_update_refused(xd_shadow *shadow, xd_update *update)
{
    for (uint32_t i = 0; i < update->to_protect; i++)
        shadow->counters->protected_pages -= update->errors[i] != 0;
    for (uint32_t i = 0; i < update->count; i++) {
        xd_missing_table *missing = &update->missing[i];
        if (!missing->number || !is_refused(update, missing->gfn))
            continue;
        xd_remove(shadow, missing->number);
        missing->number = update->numbers[i] = 0;
        missing->refused = 1;
        shadow->counters->unprotectable_entries++;
    }
}

uint32_t xd_update_undo(xd_shadow *shadow, xd_update *update)
{
    uint32_t protected = 0;
    for (uint32_t i = 0; i < update->to_protect; i++)
        if (!update->errors[i])
            update->gfns[protected++] = update->gfns[i];
    shadow->counters->protected_pages -= update->to_protect;
    for (uint32_t i = 0; i < update->count; i++) {
        xd_missing_table *missing = &update->missing[i];
        if (!missing->number)
            continue;
        shadow->counters->unsynced_births -= (shadow->tables[missing->number].flags & XD_TABLE_UNSYNCED) != 0;
        xd_remove(shadow, missing->number);
        missing->number = update->numbers[i] = 0;
    }
    return protected;
}

int xd_update_finish(xd_shadow *shadow, xd_update *update)
{
    update->need.count = update->unread = 0;
    if (!update->directories) {
        uint32_t count = 0;
        for (uint32_t i = 0; i < update->count; i++)
            if (update->numbers[i] && !(shadow->tables[update->numbers[i]].flags & XD_TABLE_UNSYNCED))
                update->numbers[count++] = update->numbers[i];
        update->unread = xd_leaf_update_many(shadow, update->numbers, count, &update->need);
    } else
        for (uint32_t i = 0; i < update->count; i++)
            if (update->numbers[i])
                xd_ref(shadow, update->numbers[i]);
    link_entries(shadow, update);
    xd_unref_tables(shadow, update->missing, update->count);
    return update->unread ? XD_UPDATE_UNREAD_LEAVES : XD_UPDATE_CREATED;
}
