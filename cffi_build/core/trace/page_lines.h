#ifndef XD_PAGE_LINES_H
#define XD_PAGE_LINES_H
#include <stdint.h>

/* Words of a page, and the bytes that the lines of one page take at most: each word needs a line of its own. */
enum { XD_PAGE_WORDS = 512, XD_PAGE_LINES = XD_PAGE_WORDS * 84 };

/* A page whose content changed; `before` is NULL if it is not known, so that every word is written. */
typedef struct xd_page_change {
    uint64_t gpa;
    const uint64_t *before;
    const uint64_t *after;
} xd_page_change;

/*
 * Writes what turns the content `before` of pages into `after` as lines of a trace (docs/trace-format.md): a `fill` for
 * equal words that follow each other, a `store` for any other word that changed.
 *
 * to: room for XD_PAGE_LINES bytes for each of the `count` pages. Returns how many bytes were written. Called by
 * trace/background.py, on a thread of its own.
 */
uint64_t xd_page_lines(char *to, const xd_page_change *pages, uint32_t count);

#endif
