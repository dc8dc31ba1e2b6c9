#ifndef XD_BLIT_RASTER_H
#define XD_BLIT_RASTER_H
#include <stdint.h>

/*
 * Raster operations, byte by byte.
 *
 * A code has one bit for each value of three bits: of the pattern (4), the source (2) and the destination (1). So 0xf0
 * is the pattern, 0xcc the source, 0xaa the destination. Any thread may call the functions here.
 */

/* Returns whether the result of operation `code` depends on the pattern. Called by blit.c. */
int xd_raster_uses_pattern(uint8_t code);
/* Returns whether the result of operation `code` depends on the source. Called by blit.c. */
int xd_raster_uses_source(uint8_t code);
/* Returns whether the result of operation `code` depends on the destination. Called by blit.c. */
int xd_raster_uses_destination(uint8_t code);

/*
 * Computes `size` bytes of operation `code` into `result`, which may be one of the operands `pattern`, `source` and
 * `destination`. An operand that the code does not use may be anything, but not NULL. Called by blit.c.
 */
void xd_raster(uint8_t code, const uint8_t *pattern, const uint8_t *source, const uint8_t *destination, uint8_t *result,
               uint32_t size);

/* Replaces those bits of `size` bytes of `result` that are not set in `mask` by `destination`. Called by blit.c. */
void xd_raster_mask(const uint8_t *mask, const uint8_t *destination, uint8_t *result, uint32_t size);

#endif
