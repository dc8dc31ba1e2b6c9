#include "owner.h"

#include <pthread.h>

/* thread: 0 if nobody owns this. The others are valid while it is not 0, or were a moment ago. */
typedef struct owner {
    uint64_t thread;
    uint32_t busy;
    uint32_t count;
    xd_part parts[XD_OWNED_PARTS];
} owner;

static owner owners[XD_OWNERS];
static uint32_t used; /* owners[used..] were never used */
static __thread int refused __attribute__((tls_model("initial-exec"))); /* as in guard.c: cheap */

enum { TAKEN = 1 };

static uint64_t this_thread(void)
{
    return (uint64_t)pthread_self();
}

static void note_used(uint32_t count)
{
    uint32_t before = __atomic_load_n(&used, __ATOMIC_RELAXED);
    while (before < count &&
           !__atomic_compare_exchange_n(&used, &before, count, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        ;
}

int xd_owner_begin(const xd_part *parts, uint32_t count)
{
    for (uint32_t i = 0; i < XD_OWNERS; i++) {
        uint64_t nobody = 0;
        owner *one = &owners[i];
        if (!__atomic_compare_exchange_n(&one->thread, &nobody, TAKEN, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            continue;
        one->busy = 0;
        one->count = count < XD_OWNED_PARTS ? count : XD_OWNED_PARTS;
        for (uint32_t part = 0; part < one->count; part++)
            one->parts[part] = parts[part];
        note_used(i + 1);
        __atomic_store_n(&one->thread, this_thread(), __ATOMIC_RELEASE);
        return (int)i;
    }
    return -1;
}

void xd_owner_end(int number)
{
    if (number >= 0)
        __atomic_store_n(&owners[number].thread, 0, __ATOMIC_RELEASE);
}

void xd_owner_busy(int number, uint32_t busy)
{
    if (number >= 0)
        __atomic_store_n(&owners[number].busy, busy, __ATOMIC_RELAXED);
}

static int has(const owner *one, uint64_t address)
{
    for (uint32_t part = 0; part < one->count; part++)
        if (address - one->parts[part].address < one->parts[part].size)
            return 1;
    return 0;
}

/* Returns the owner of what is at `address`, with its thread in *thread; or -1. */
static int find(uint64_t address, uint64_t *thread)
{
    uint32_t count = __atomic_load_n(&used, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < count; i++) {
        *thread = __atomic_load_n(&owners[i].thread, __ATOMIC_ACQUIRE);
        if (*thread > TAKEN && has(&owners[i], address))
            return (int)i;
    }
    return -1;
}

int xd_owner_of(const void *thing)
{
    uint64_t thread;
    int number = find((uint64_t)(uintptr_t)thing, &thread);
    return number >= 0 && thread == this_thread() ? number : -1;
}

int xd_owner_admits(const void *thing)
{
    uint64_t thread;
    int number = find((uint64_t)(uintptr_t)thing, &thread);
    if (number < 0 || (thread == this_thread() && !__atomic_load_n(&owners[number].busy, __ATOMIC_RELAXED)))
        return 1;
    refused = 1;
    return 0;
}

int xd_owner_refused(void)
{
    int was = refused;
    refused = 0;
    return was;
}
