#ifndef XD_PROTECTED_BITS_H
#define XD_PROTECTED_BITS_H
#include <stdint.h>

/*
 * One bit for each of a domain's `frames` frames: whether it may have the trapping type. Frame n is bit n % 64 of word
 * n / 64. The words are a file that outlives the process, so each bit changes by one aligned 8-byte store, which is made
 * before the function returns. One thread of one process writes.
 */

/*
 * Set the bits of `count` frames. One at or above `frames` is left out: it is no RAM, so it cannot get the type. Called
 * by traps/protected.py.
 */
void xd_protected_add(uint64_t *words, uint64_t frames, const uint64_t *gfns, uint64_t count);

/* Clear the bits of `count` frames; those at or above `frames` are left out. Called by traps/protected.py. */
void xd_protected_remove(uint64_t *words, uint64_t frames, const uint64_t *gfns, uint64_t count);

/*
 * Counts the bits in `words` words, of which the process that wrote them may have left any contents.
 *
 * frames: receives how many bits are set. beyond: receives how many of them are at or above `limit`. Returns 0, or
 * -EFAULT if some of the memory is not there. The caller has called xd_guard_install. Called by traps/protected.py.
 */
int xd_protected_count(const uint64_t *words, uint64_t word_count, uint64_t limit, uint64_t *frames, uint64_t *beyond);

/*
 * Lists the frames whose bits are set, ascending, and at most `room`.
 *
 * gfns: receives them. count: receives how many. Returns 0 or -EFAULT, as xd_protected_count. Called by
 * traps/protected.py.
 */
int xd_protected_list(const uint64_t *words, uint64_t word_count, uint64_t *gfns, uint64_t room, uint64_t *count);

#endif
