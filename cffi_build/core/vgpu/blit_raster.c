/* The 256 raster operations, as a tree of choices by pattern, source and destination. */
#include "blit_raster.h"

#include <string.h>

int xd_raster_uses_pattern(uint8_t code)
{
    return ((code >> 4) ^ code) & 0x0f;
}

int xd_raster_uses_source(uint8_t code)
{
    return ((code >> 2) ^ code) & 0x33;
}

int xd_raster_uses_destination(uint8_t code)
{
    return ((code >> 1) ^ code) & 0x55;
}

/* All ones or zeros, by a bit of the code. */
static uint64_t all(uint8_t code, int bit)
{
    return code >> bit & 1 ? ~UINT64_C(0) : 0;
}

static uint64_t choose(uint64_t by, uint64_t if_set, uint64_t if_clear)
{
    return (by & if_set) | (~by & if_clear);
}

/* Words in memory of any kind. */
typedef uint64_t __attribute__((may_alias, aligned(1))) word;

/* Eight bytes, or as many of a last word as there are. */
static inline uint64_t result_of(const uint64_t bits[8], uint64_t p, uint64_t s, uint64_t d)
{
    return choose(p, choose(s, choose(d, bits[7], bits[6]), choose(d, bits[5], bits[4])),
                  choose(s, choose(d, bits[3], bits[2]), choose(d, bits[1], bits[0])));
}

void xd_raster(uint8_t code, const uint8_t *pattern, const uint8_t *source, const uint8_t *destination, uint8_t *result,
               uint32_t size)
{
    uint64_t bits[8];
    for (int i = 0; i < 8; i++)
        bits[i] = all(code, i);
    const word *ps = (const word *)pattern, *ss = (const word *)source, *ds = (const word *)destination;
    word *rs = (word *)result;
    uint32_t words = size / 8, left = size % 8, done = words * 8;
#if !defined(__clang__)
#pragma GCC ivdep
#endif
    for (uint32_t i = 0; i < words; i++) /* the result may be an operand, but word by word */
        rs[i] = result_of(bits, ps[i], ss[i], ds[i]);
    uint64_t p = 0, s = 0, d = 0;
    memcpy(&p, pattern + done, left);
    memcpy(&s, source + done, left);
    memcpy(&d, destination + done, left);
    uint64_t r = result_of(bits, p, s, d);
    memcpy(result + done, &r, left);
}

void xd_raster_mask(const uint8_t *mask, const uint8_t *destination, uint8_t *result, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++)
        result[i] = (uint8_t)((mask[i] & result[i]) | (~mask[i] & destination[i]));
}
