#include "surface.h"

#include <string.h>

#include "random.h"

const char *const tiling_names[TILINGS] = {"linear", "X", "Y"};

uint32_t surface_offset(enum tiling tiling, uint32_t pitch, uint32_t x, uint32_t y)
{
    switch (tiling) {
    case TILE_X: /* tiles of 512 bytes by 8 rows, row by row */
        return (y / 8 * (pitch / 512) + x / 512) * PAGE_SIZE + y % 8 * 512 + x % 512;
    case TILE_Y: /* tiles of 128 bytes by 32 rows, in columns of 16 bytes */
        return (y / 32 * (pitch / 128) + x / 128) * PAGE_SIZE + x % 128 / 16 * 512 + y % 32 * 16 + x % 16;
    default:
        return y * pitch + x;
    }
}

static uint8_t *at(const struct surface *surface, uint32_t x, uint32_t y)
{
    return (uint8_t *)surface->object.dwords + surface_offset(surface->tiling, SURFACE_PITCH, x, y);
}

void surface_init(struct surface *surface, int file, enum tiling tiling, uint64_t *random)
{
    surface->object = object_new(file, SURFACE_SIZE);
    surface->tiling = tiling;
    for (uint32_t y = 0; y < SURFACE_HEIGHT; y++)
        for (uint32_t x = 0; x < SURFACE_PITCH; x++)
            *at(surface, x, y) = surface->model[y][x] = (uint8_t)(random_next(random) >> 56);
}

void surface_end(struct surface *surface)
{
    object_end(&surface->object);
}

unsigned surface_wrong(const struct surface *surface)
{
    unsigned wrong = 0;
    for (uint32_t y = 0; y < SURFACE_HEIGHT; y++)
        for (uint32_t x = 0; x < SURFACE_PITCH; x++)
            wrong += *at(surface, x, y) != surface->model[y][x];
    return wrong;
}

/* Bit p*4 + s*2 + d of a raster operation is the result for these bits of pattern, source and destination. */
static uint8_t combined(uint8_t rop, uint8_t pattern, uint8_t source, uint8_t destination)
{
    unsigned result = 0;
    for (unsigned bit = 0; bit < 8; bit++) {
        unsigned row = (pattern >> bit & 1u) << 2 | (source >> bit & 1u) << 1 | (destination >> bit & 1u);
        result |= (rop >> row & 1u) << bit;
    }
    return (uint8_t)result;
}

void model_fill(struct surface *to, struct rectangle where, unsigned bytes, uint8_t rop, uint32_t colour)
{
    for (uint32_t y = 0; y < where.height; y++)
        for (uint32_t x = 0; x < where.width * bytes; x++) {
            uint8_t *byte = &to->model[where.y + y][where.x * bytes + x];
            *byte = combined(rop, (uint8_t)(colour >> x % bytes * 8), 0, *byte);
        }
}

void model_copy(struct surface *to, struct rectangle where, const struct surface *from, uint32_t x, uint32_t y,
                unsigned bytes, uint8_t rop)
{
    static uint8_t before[SURFACE_HEIGHT][SURFACE_PITCH];
    memcpy(before, from->model, sizeof before);
    for (uint32_t row = 0; row < where.height; row++)
        for (uint32_t column = 0; column < where.width * bytes; column++) {
            uint8_t *byte = &to->model[where.y + row][where.x * bytes + column];
            *byte = combined(rop, 0, before[y + row][x * bytes + column], *byte);
        }
}
