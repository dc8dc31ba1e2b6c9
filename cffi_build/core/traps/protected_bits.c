/* The bits of frames that may have the trapping type: changed for a batch at a time, and read once, by a successor. */
#include "protected_bits.h"

#include "guard.h"

enum { WORD_BITS = 64 };

static uint64_t bit_of(uint64_t gfn)
{
    return UINT64_C(1) << gfn % WORD_BITS;
}

void xd_protected_add(uint64_t *words, uint64_t frames, const uint64_t *gfns, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        if (gfns[i] < frames) {
            uint64_t *word = &words[gfns[i] / WORD_BITS];
            __atomic_store_n(word, *word | bit_of(gfns[i]), __ATOMIC_RELAXED);
        }
}

void xd_protected_remove(uint64_t *words, uint64_t frames, const uint64_t *gfns, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        if (gfns[i] < frames) {
            uint64_t *word = &words[gfns[i] / WORD_BITS];
            __atomic_store_n(word, *word & ~bit_of(gfns[i]), __ATOMIC_RELAXED);
        }
}

typedef struct counting {
    uint64_t word_count;
    uint64_t limit;
    uint64_t frames;
    uint64_t beyond;
} counting;

static uint64_t bits(uint64_t word)
{
    return (uint64_t)__builtin_popcountll(word);
}

static void count_now(const void *address, void *more)
{
    const uint64_t *words = address;
    counting *found = more;
    for (uint64_t i = 0; i < found->word_count; i++) {
        uint64_t word = words[i];
        if (!word)
            continue;
        found->frames += bits(word);
        if (i > found->limit / WORD_BITS)
            found->beyond += bits(word);
        else if (i == found->limit / WORD_BITS)
            found->beyond += bits(word & ~(bit_of(found->limit) - 1));
    }
}

int xd_protected_count(const uint64_t *words, uint64_t word_count, uint64_t limit, uint64_t *frames, uint64_t *beyond)
{
    counting found = {.word_count = word_count, .limit = limit};
    int error = xd_guarded(words, word_count * sizeof(*words), count_now, &found);
    *frames = found.frames;
    *beyond = found.beyond;
    return error;
}

typedef struct listing {
    uint64_t word_count;
    uint64_t *gfns;
    uint64_t room;
    uint64_t count;
} listing;

static void list_now(const void *address, void *more)
{
    const uint64_t *words = address;
    listing *found = more;
    for (uint64_t i = 0; i < found->word_count; i++)
        for (uint64_t word = words[i]; word && found->count < found->room; word &= word - 1)
            found->gfns[found->count++] = i * WORD_BITS + (uint64_t)__builtin_ctzll(word);
}

int xd_protected_list(const uint64_t *words, uint64_t word_count, uint64_t *gfns, uint64_t room, uint64_t *count)
{
    listing found = {.word_count = word_count, .gfns = gfns, .room = room};
    int error = xd_guarded(words, word_count * sizeof(*words), list_now, &found);
    *count = found.count;
    return error;
}
