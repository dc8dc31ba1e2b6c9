#ifndef XD_DECIMAL_H
#define XD_DECIMAL_H
#include <stdint.h>

/*
 * Writes `value` as a decimal number at `to`, which has room for 20 bytes. Returns the end of it. Called by
 * page_lines.c, in any thread.
 */
static inline char *xd_decimal(char *to, uint64_t value)
{
    char digits[20];
    unsigned count = 0;
    do
        digits[count++] = (char)('0' + value % 10);
    while (value /= 10);
    while (count)
        *to++ = digits[--count];
    return to;
}

#endif
