#ifndef HOSTILE_RANDOM_H
#define HOSTILE_RANDOM_H
#include <stdbool.h>
#include <stdint.h>

/* What a hostile guest draws from a seed. */

/* Returns a number by splitmix64, and advances the seed. */
static inline uint64_t draw(uint64_t *seed)
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* Returns a number below `limit`. */
static inline uint64_t below(uint64_t *seed, uint64_t limit)
{
    return (draw(seed) >> 32) * limit >> 32;
}

/* Returns true in so many of a thousand cases. */
static inline bool chance(uint64_t *seed, uint32_t of_thousand)
{
    return below(seed, 1000) < of_thousand;
}

#endif
