#include "journal.h"

#include <stdbool.h>
#include <string.h>

_Static_assert(sizeof(xd_journal_record) == 512, "the state has 512 bytes for a record");
_Static_assert((int)XD_JOURNAL_WORDS == sizeof(((xd_journal_half *)0)->words) / sizeof(xd_journal_word),
               "the header says how many words fit");

enum { MOST_ELEMENTS = 4096 };

/* A store that is one machine access, and that the compiler moves no store over. */
static void store_last(uint64_t *to, uint64_t value)
{
    __atomic_store_n(to, value, __ATOMIC_RELEASE);
}

static uint64_t commit_word(uint32_t element, uint64_t half, uint64_t phase)
{
    return (uint64_t)element << XD_JOURNAL_ELEMENT_SHIFT | half << XD_JOURNAL_HALF_SHIFT | phase;
}

static uint64_t half_of(uint64_t commit)
{
    return commit >> XD_JOURNAL_HALF_SHIFT & 1;
}

static uint64_t phase_of(uint64_t commit)
{
    return commit & 0xff;
}

void xd_journal_forget(xd_journal_record *record)
{
    if (record->commit | record->attempts) {
        record->attempts = 0;
        store_last(&record->commit, XD_JOURNAL_NOTHING);
    }
}

void xd_journal_value(xd_journal_record *record, uint32_t element, uint64_t value, uint64_t old)
{
    uint64_t half = !half_of(record->commit);
    record->halves[half].value = value;
    record->halves[half].old = old;
    store_last(&record->commit, commit_word(element, half, XD_JOURNAL_VALUE));
}

static void store_words(xd_journal_record *record, uint64_t commit, const xd_journal_half *half, uint64_t *state)
{
    for (uint64_t i = 0; i < half->count; i++)
        store_last(&state[half->words[i].word], half->words[i].value);
    store_last(&record->commit, (commit & ~(uint64_t)0xff) | XD_JOURNAL_DONE);
}

void xd_journal_commit(xd_journal_record *record, uint32_t element, const xd_journal_word *words, uint32_t count,
                       uint64_t *state)
{
    uint64_t half = !half_of(record->commit);
    for (uint32_t i = 0; i < count; i++)
        record->halves[half].words[i] = words[i];
    record->halves[half].count = count;
    store_last(&record->commit, commit_word(element, half, XD_JOURNAL_COMMITTED));
    store_words(record, record->commit, &record->halves[half], state);
}

void xd_journal_done(xd_journal_record *record, uint32_t element)
{
    store_last(&record->commit, commit_word(element, half_of(record->commit), XD_JOURNAL_DONE));
}

static bool is_in(uint64_t word, const xd_journal_region *regions, uint32_t nr_regions)
{
    for (uint32_t i = 0; i < nr_regions; i++)
        if (word >= regions[i].first && word - regions[i].first < regions[i].count)
            return true;
    return false;
}

int xd_journal_read(const xd_journal_record *record, const xd_journal_region *regions, uint32_t nr_regions,
                    xd_journal_copy *copy)
{
    uint64_t commit = copy->commit = __atomic_load_n(&record->commit, __ATOMIC_ACQUIRE);
    if (phase_of(commit) > XD_JOURNAL_DONE || (commit >> XD_JOURNAL_HALF_SHIFT & 0xff) > 1 ||
        commit >> XD_JOURNAL_ELEMENT_SHIFT >= MOST_ELEMENTS)
        return 0;
    if (phase_of(commit) != XD_JOURNAL_COMMITTED)
        return 1;
    memcpy(&copy->half, &record->halves[half_of(commit)], sizeof(copy->half));
    if (copy->half.count > XD_JOURNAL_WORDS)
        return 0;
    for (uint64_t i = 0; i < copy->half.count; i++)
        if (!is_in(copy->half.words[i].word, regions, nr_regions))
            return 0;
    return 1;
}

void xd_journal_finish(xd_journal_record *record, const xd_journal_copy *copy, uint64_t *state)
{
    if (phase_of(copy->commit) == XD_JOURNAL_COMMITTED)
        store_words(record, copy->commit, &copy->half, state);
}
