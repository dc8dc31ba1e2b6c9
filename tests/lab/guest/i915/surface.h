/* Surfaces: how pixels lie in memory (Skylake PRM volume 5, tiling), and a model of what blits make of them. */
#ifndef SURFACE_H
#define SURFACE_H

#include "gpu.h"

enum tiling { LINEAR, TILE_X, TILE_Y, TILINGS };
extern const char *const tiling_names[TILINGS];

#define SURFACE_PITCH 1024u
#define SURFACE_HEIGHT 64u
#define SURFACE_SIZE (SURFACE_PITCH * SURFACE_HEIGHT)

struct surface {
    struct object object;
    enum tiling tiling;
    uint8_t model[SURFACE_HEIGHT][SURFACE_PITCH]; /* row by row, whatever the tiling */
};

struct rectangle {
    uint32_t x, y, width, height; /* pixels */
};

/* One full of random bytes. */
void surface_init(struct surface *surface, int file, enum tiling tiling, uint64_t *random);
void surface_end(struct surface *surface);
/* Where the byte at x (bytes), y is. */
uint32_t surface_offset(enum tiling tiling, uint32_t pitch, uint32_t x, uint32_t y);
/* Bytes that differ from the model. */
unsigned surface_wrong(const struct surface *surface);

/* A rectangle of `bytes` a pixel is written; `rop` combines pattern, source and destination bit by bit. */
void model_fill(struct surface *to, struct rectangle at, unsigned bytes, uint8_t rop, uint32_t colour);
/* The source's values are those from before the copy. */
void model_copy(struct surface *to, struct rectangle at, const struct surface *from, uint32_t x, uint32_t y,
                unsigned bytes, uint8_t rop);

#endif
