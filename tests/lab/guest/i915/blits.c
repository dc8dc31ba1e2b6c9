/* Copies and fills of the blitter against the client's own arithmetic. */
#include <stdio.h>

#include "batch.h"
#include "checks.h"
#include "random.h"
#include "surface.h"

#define SEED 0x2545f4914f6cdd1dull
#define RECTANGLES 4u
#define BLT(opcode, length) (2u << 29 | (uint32_t)(opcode) << 22 | (length))
#define WRITE_ALL_BYTES (3u << 20) /* of pixels of 32 bits */
#define SOURCE_TILED (1u << 15)
#define TARGET_TILED (1u << 11)
#define BCS_SWCTRL 0x22200u /* bit 0: tiled sources are Y, bit 1: so are destinations */
#define ROP_COPY 0xccu
#define ROP_PATTERN 0xf0u

struct depth {
    unsigned bytes;
    uint32_t legacy, fast; /* the commands' "Color Depth" */
};
static const struct depth depths[] = {{1, 0, 0}, {2, 1, 1}, {4, 3, 3}, {8, 0, 4}, {16, 0, 5}};
#define LEGACY_DEPTHS 3u
#define FAST_DEPTHS 5u

static struct rectangle random_rectangle(uint64_t *random, unsigned bytes)
{
    uint32_t columns = SURFACE_PITCH / bytes;
    struct rectangle at = {.x = random_below(random, columns), .y = random_below(random, SURFACE_HEIGHT)};
    at.width = 1 + random_below(random, columns - at.x);
    at.height = 1 + random_below(random, SURFACE_HEIGHT - at.y);
    return at;
}

static uint32_t pitch(enum tiling tiling)
{
    return tiling == LINEAR ? SURFACE_PITCH : SURFACE_PITCH / 4;
}

static void emit_flush(struct batch *batch)
{
    emit(batch, MI_FLUSH_DW);
    emit(batch, 0);
    emit(batch, 0);
    emit(batch, 0);
}

static void emit_tilings(struct batch *batch, enum tiling source, enum tiling target)
{
    emit_flush(batch);
    emit_register(batch, BCS_SWCTRL, 3u << 16 | (uint32_t)(source == TILE_Y) | (uint32_t)(target == TILE_Y) << 1);
}

static void emit_rectangle(struct batch *batch, const struct surface *to, struct rectangle at)
{
    emit(batch, at.y << 16 | at.x);
    emit(batch, (at.y + at.height) << 16 | (at.x + at.width)); /* the first that is not written */
    emit_address(batch, to->object.address);
}

static void emit_source(struct batch *batch, const struct surface *from, uint32_t x, uint32_t y)
{
    emit(batch, y << 16 | x);
    emit(batch, pitch(from->tiling));
    emit_address(batch, from->object.address);
}

static void emit_fill(struct batch *batch, struct surface *to, struct rectangle at, const struct depth *depth,
                      uint8_t rop, uint32_t colour)
{
    emit(batch, BLT(0x50, 5) | (depth->bytes == 4 ? WRITE_ALL_BYTES : 0) | (to->tiling != LINEAR ? TARGET_TILED : 0));
    emit(batch, depth->legacy << 24 | (uint32_t)rop << 16 | pitch(to->tiling));
    emit_rectangle(batch, to, at);
    emit(batch, colour);
    model_fill(to, at, depth->bytes, rop, colour);
}

static void emit_copy(struct batch *batch, struct surface *to, struct rectangle at, const struct surface *from, uint32_t x,
                      uint32_t y, const struct depth *depth, uint8_t rop)
{
    emit(batch, BLT(0x53, 8) | (depth->bytes == 4 ? WRITE_ALL_BYTES : 0) | (to->tiling != LINEAR ? TARGET_TILED : 0) |
                    (from->tiling != LINEAR ? SOURCE_TILED : 0));
    emit(batch, depth->legacy << 24 | (uint32_t)rop << 16 | pitch(to->tiling));
    emit_rectangle(batch, to, at);
    emit_source(batch, from, x, y);
    model_copy(to, at, from, x, y, depth->bytes, rop);
}

static void emit_fast_copy(struct batch *batch, struct surface *to, struct rectangle at, const struct surface *from,
                           uint32_t x, uint32_t y, const struct depth *depth)
{
    emit(batch, BLT(0x42, 8) | (uint32_t)from->tiling << 20 | (uint32_t)to->tiling << 13);
    emit(batch, depth->fast << 24 | pitch(to->tiling));
    emit_rectangle(batch, to, at);
    emit_source(batch, from, x, y);
    model_copy(to, at, from, x, y, depth->bytes, ROP_COPY);
    emit_flush(batch);
}

static struct surface source, target; /* too large for a stack */

static void fills(struct queue queue, enum tiling tiling, uint64_t *random)
{
    static const uint8_t rops[] = {ROP_PATTERN, 0x5a /* P ^ D */, 0x00, 0xff, 0xa0 /* P & D */, 0x55 /* ~D */};
    surface_init(&target, queue.file, tiling, random);
    struct batch batch = batch_new(queue, PAGE_SIZE);
    batch_use(&batch, &target.object);
    emit_tilings(&batch, LINEAR, tiling);
    for (unsigned i = 0; i < 2 * RECTANGLES; i++) {
        const struct depth *depth = &depths[i % LEGACY_DEPTHS];
        emit_fill(&batch, &target, random_rectangle(random, depth->bytes), depth, rops[i % sizeof rops],
                  (uint32_t)random_next(random));
    }
    batch_run(&batch);
    check(0, surface_wrong(&target), "XY_COLOR_BLT %s", tiling_names[tiling]);
    surface_end(&target);
}

static void copies(struct queue queue, enum tiling from, enum tiling to, bool fast, uint64_t *random)
{
    static const uint8_t rops[] = {ROP_COPY, 0x66 /* S ^ D */, 0x33 /* ~S */, 0xee /* S | D */};
    surface_init(&source, queue.file, from, random);
    surface_init(&target, queue.file, to, random);
    struct batch batch = batch_new(queue, PAGE_SIZE);
    batch_use(&batch, &source.object);
    batch_use(&batch, &target.object);
    if (!fast)
        emit_tilings(&batch, from, to);
    for (unsigned i = 0; i < 2 * RECTANGLES; i++) {
        const struct depth *depth = &depths[i % (fast ? FAST_DEPTHS : LEGACY_DEPTHS)];
        struct rectangle at = random_rectangle(random, depth->bytes);
        if (fast && at.height % 4 == 3) /* from linear to Y the manual forbids it */
            at.height--;
        uint32_t x = random_below(random, SURFACE_PITCH / depth->bytes - at.width + 1);
        uint32_t y = random_below(random, SURFACE_HEIGHT - at.height + 1);
        if (fast)
            emit_fast_copy(&batch, &target, at, &source, x, y, depth);
        else
            emit_copy(&batch, &target, at, &source, x, y, depth, rops[i % sizeof rops]);
    }
    batch_run(&batch);
    const char *name = fast ? "XY_FAST_COPY_BLT" : "XY_SRC_COPY_BLT";
    check(0, surface_wrong(&target), "%s %s to %s", name, tiling_names[from], tiling_names[to]);
    check(0, surface_wrong(&source), "the source of %s %s to %s", name, tiling_names[from], tiling_names[to]);
    surface_end(&source);
    surface_end(&target);
}

/* Within one surface, in the four directions. */
static void overlaps(struct queue queue, enum tiling tiling, uint64_t *random)
{
    static const struct { uint32_t from_x, from_y, to_x, to_y; } moves[] = {
        {0, 0, 3, 2}, {3, 2, 0, 0}, {0, 5, 7, 0}, {9, 0, 0, 4}, {0, 0, 1, 0}, {0, 0, 0, 1},
    };
    for (unsigned i = 0; i < sizeof moves / sizeof moves[0]; i++) {
        surface_init(&target, queue.file, tiling, random);
        struct batch batch = batch_new(queue, PAGE_SIZE);
        batch_use(&batch, &target.object);
        emit_tilings(&batch, tiling, tiling);
        struct rectangle at = {moves[i].to_x, moves[i].to_y, 240, 50};
        emit_copy(&batch, &target, at, &target, moves[i].from_x, moves[i].from_y, &depths[2], ROP_COPY);
        batch_run(&batch);
        check(0, surface_wrong(&target), "XY_SRC_COPY_BLT over itself, move %u %s", i, tiling_names[tiling]);
        surface_end(&target);
    }
}

void check_blits(unsigned size)
{
    (void)size;
    int file = gpu_open();
    struct queue queue = {file, context_new(file), &engines[BCS0]};
    uint64_t random = SEED;
    printf("seed %#llx\n", (unsigned long long)random);
    for (enum tiling to = LINEAR; to < TILINGS; to++) {
        fills(queue, to, &random);
        for (enum tiling from = LINEAR; from < TILINGS; from++)
            for (unsigned fast = 0; fast < 2; fast++)
                copies(queue, from, to, fast, &random);
    }
    overlaps(queue, LINEAR, &random);
    overlaps(queue, TILE_X, &random);
}
