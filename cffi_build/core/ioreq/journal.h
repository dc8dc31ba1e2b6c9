#ifndef XD_JOURNAL_H
#define XD_JOURNAL_H
#include <stdint.h>

/*
 * The journal: how far the request of each vCPU got, for a successor of a process that was killed.
 *
 * Facts: a process that is killed keeps every store that it made to a shared mapping, in program order. A request that
 * says what is to be in memory afterwards ("store 5 there") may be done twice. One that says what is to change ("one
 * reference more"), or that reads what it also writes (a repeated move), may not.
 *
 * What follows: a request of the first kind needs no record; its slot, which is INPROCESS, says that it is to be done
 * again. For one of the second kind all that it changes is computed first, as words and their new values, and written
 * to the record of the vCPU. One aligned store of 8 bytes to `commit` makes that valid. Then the words are stored, and
 * one more store to `commit` marks them as stored. A successor finds one of three things:
 *
 *     nothing valid        nothing was changed: do the request from its beginning
 *     XD_JOURNAL_COMMITTED some words may have been stored, and no other request was served since: store all of them
 *     XD_JOURNAL_DONE      they have been stored, and others may have changed them since: store none
 *
 * A request of the first kind may be done again only as long as no other is answered after it. If its answer takes long,
 * others are: then it is XD_JOURNAL_DONE as soon as its value is in memory.
 *
 * A request may stand for several accesses, its elements; `commit` says for which element it holds, and all elements
 * before that one are done. XD_JOURNAL_VALUE is for an element that copies: the value has been read, and from now on
 * the copy is an absolute store.
 *
 * A record has two halves. While one is valid, the next element is written to the other.
 *
 * Example: elements 0 and 1 of a `rep movs` have been copied, and element 2 has read 7 from its source. `commit` says
 * VALUE, element 2, half 0; value[0] is 7. The process dies; its successor stores 7 and goes on with element 3.
 *
 * The records are memory of the instance's state file, so what a successor reads in them may be anything. The thread
 * that serves the guest calls every function here.
 */
enum { XD_JOURNAL_NOTHING = 0, XD_JOURNAL_VALUE = 1, XD_JOURNAL_COMMITTED = 2, XD_JOURNAL_DONE = 3 };
/* `commit` is phase | half << 8 | element << 16. */
enum { XD_JOURNAL_HALF_SHIFT = 8, XD_JOURNAL_ELEMENT_SHIFT = 16, XD_JOURNAL_WORDS = 13 };

/* Word number `word` of the state becomes `value`. */
typedef struct xd_journal_word {
    uint64_t word;
    uint64_t value;
} xd_journal_word;

/* What XD_JOURNAL_VALUE (value, old: what the destination held) and XD_JOURNAL_COMMITTED (count, words) refer to. */
typedef struct xd_journal_half {
    uint64_t value;
    uint64_t old;
    uint64_t count;
    xd_journal_word words[13];
} xd_journal_half;

/* attempts: how many processes began to do the request again. */
typedef struct xd_journal_record {
    uint64_t commit;
    uint64_t attempts;
    xd_journal_half halves[2];
    uint64_t room[4];
} xd_journal_record;

/* Forgets all about the request before: the vCPU has a new one. Called by slots.c, before the slot is INPROCESS. */
void xd_journal_forget(xd_journal_record *record);

/*
 * Commits that `element` copies `value`, and that its destination held `old`. Called by ioreq/journal.py.
 */
void xd_journal_value(xd_journal_record *record, uint32_t element, uint64_t value, uint64_t old);

/*
 * Commits that `count` words (at most XD_JOURNAL_WORDS) of `state` change, changes them, and says that `element` is
 * done. Called by ioreq/journal.py and gpu.c.
 */
void xd_journal_commit(xd_journal_record *record, uint32_t element, const xd_journal_word *words, uint32_t count,
                       uint64_t *state);

/* Says that `element` and those before it are done. Called by ioreq/journal.py and burst.c. */
void xd_journal_done(xd_journal_record *record, uint32_t element);

/* `count` words of the state from number `first` on. */
typedef struct xd_journal_region {
    uint64_t first;
    uint64_t count;
} xd_journal_region;

/* What a successor believes of a record. `half`: the valid one, if the phase in `commit` is XD_JOURNAL_COMMITTED. */
typedef struct xd_journal_copy {
    uint64_t commit;
    xd_journal_half half;
} xd_journal_copy;

/*
 * For a successor: copies what is valid of a record to `copy`, and checks the copy. Returns 1 if the functions here can
 * have written it, and every word that it changes lies in one of the `nr_regions` regions; else 0, and then `copy` is of
 * no use. Called by ioreq/journal.py.
 */
int xd_journal_read(const xd_journal_record *record, const xd_journal_region *regions, uint32_t nr_regions,
                    xd_journal_copy *copy);

/*
 * For a successor: stores the words of a copy that is XD_JOURNAL_COMMITTED, and says in `record` that the element is
 * done. Does nothing for a copy in another phase. The copy is one for which xd_journal_read returned 1: the record
 * itself may have changed since. Called by ioreq/journal.py.
 */
void xd_journal_finish(xd_journal_record *record, const xd_journal_copy *copy, uint64_t *state);

#endif
