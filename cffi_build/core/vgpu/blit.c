/* Performing blits: which spans a rectangle has, what is computed for each, and how far it came. */
#include "blit.h"

#include "blit_raster.h"

#include <stdbool.h>
#include <string.h>

enum { SPAN = XD_FRAME_SIZE, LEAST_COST = 64, STAGED_PAGES = 16, STAGE = STAGED_PAGES * XD_FRAME_SIZE };
/* Raster operations whose result is an operand. */
enum { PATTERN_COPY = 0xf0, SOURCE_COPY = 0xcc };

/*
 * The cursor: bits 15:0 the rows that are done; 35:16 the bytes that are done of the rows that are at work, whose
 * number depends on the place alone; 50:36 how many bytes of the span are written, if that is known; 62:51 the number
 * of the span in its cell; 63 the bounce area is valid.
 */
enum { COLUMN_SHIFT = 16, STORED_SHIFT = 36, INDEX_SHIFT = 51 };
static const uint64_t ROW_MASK = 0xffff, COLUMN_MASK = 0xfffff, STORED_MASK = 0x7fff, INDEX_MASK = 0xfff,
                      BOUNCED = UINT64_C(1) << 63;

/* Spans that are at work together: where they begin in the order of the blit, and their bytes of the destination. */
typedef struct cell {
    uint32_t row, column;
    xd_blit_area to;
    uint32_t spans;
    bool staged; /* the source is read for all of them at once */
} cell;

/* The source of a cell, as rows. row, column: those of the cell. */
typedef struct stage {
    bool valid;
    uint32_t row, column;
    uint8_t bytes[STAGE];
} stage;

static const uint8_t zeros[SPAN];

static int32_t least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* One store: whatever it says was done before. */
static void commit(xd_blit *blit, uint64_t cursor)
{
    __atomic_store_n(&blit->cursor, cursor, __ATOMIC_RELEASE);
}

static uint64_t cursor_at(uint32_t row, uint32_t column, uint32_t index)
{
    return row | (uint64_t)column << COLUMN_SHIFT | (uint64_t)index << INDEX_SHIFT;
}

/* Bytes of a row of a linear surface, from or up to `x`, that lie in one page; whole pixels, at least one. */
static int32_t linear_columns(const xd_blit *blit, int32_t x, int32_t y, bool backwards)
{
    uint64_t address = xd_blit_address(&blit->to, x, y);
    int32_t bytes = backwards ? (int32_t)((address - 1) & (SPAN - 1)) + 1 : SPAN - (int32_t)(address & (SPAN - 1));
    bytes &= ~(int32_t)(blit->bytes - 1);
    return bytes ? bytes : blit->bytes;
}

/* What of the source belongs to `to`; `x` and `width` in bytes. */
static xd_blit_area source_of(const xd_blit *blit, const xd_blit_area *to)
{
    return (xd_blit_area){
        .x = to->x + (blit->from_left - blit->left) * blit->bytes,
        .y = to->y + blit->from_top - blit->top,
        .width = to->width,
        .height = to->height,
    };
}

/*
 * The cell at a place. Facts: a page of a tiled surface has short pieces of many rows; a piece costs much more than its
 * bytes. What follows: spans by rows would touch each page once for each row. Decision: a span is what lies in one page
 * of the destination if that is tiled, else in rows, and sixteen pages side by side are a cell, whose source is read at
 * once. If source and destination have the same base, later spans of a cell may read what earlier ones write, so each
 * span is a cell then. Cost: another order of pixels, which nobody can see, and reading a cell again in a turn that
 * begins in it.
 */
static cell cell_at(const xd_blit *blit, uint64_t cursor)
{
    cell at = {.row = (uint32_t)(cursor & ROW_MASK), .column = (uint32_t)(cursor >> COLUMN_SHIFT & COLUMN_MASK)};
    bool up = blit->flags & XD_BLIT_BOTTOM_TO_TOP, leftwards = blit->flags & XD_BLIT_RIGHT_TO_LEFT;
    int32_t left = blit->left * blit->bytes, right = left + blit->width * blit->bytes;
    /* the row to begin with, and the edge that is passed first */
    int32_t y = up ? blit->top + blit->height - 1 - (int32_t)at.row : blit->top + (int32_t)at.row;
    int32_t x = leftwards ? right - (int32_t)at.column : left + (int32_t)at.column;
    int32_t rows = 1, columns;
    bool color = blit->source == XD_SOURCE_COLOR;
    const xd_blit_surface *by = blit->to.x_mask ? &blit->to : color && blit->from.x_mask ? &blit->from : NULL;
    if (by) {
        xd_blit_area here = {.x = x, .y = y};
        if (by == &blit->from)
            here = source_of(blit, &here);
        rows = xd_blit_rows(by, here.y, up);
        columns = xd_blit_columns(by, here.x, leftwards);
        at.staged = color && !(blit->flags & XD_BLIT_SAME_BASE);
        if (at.staged)
            columns += (STAGED_PAGES - 1) * xd_blit_columns(by, 0, 0);
    } else {
        columns = linear_columns(blit, x, y, leftwards);
    }
    rows = least(rows, blit->height - (int32_t)at.row);
    columns = least(columns, leftwards ? x - left : right - x);
    at.to = (xd_blit_area){leftwards ? x - columns : x, up ? y - rows + 1 : y, columns, rows};
    at.spans = 1;
    if (at.staged && blit->to.x_mask) {
        int32_t first = least(xd_blit_columns(&blit->to, x, 0), columns), width = xd_blit_columns(&blit->to, 0, 0);
        at.spans = 1 + (uint32_t)((columns - first + width - 1) / width);
    } else if (at.staged) {
        int32_t height = columns < SPAN ? SPAN / columns : 1;
        int32_t pieces = (columns + SPAN - 1) / SPAN;
        at.spans = (uint32_t)(((rows + height - 1) / height) * pieces);
    }
    return at;
}

/* A span of a cell. */
static xd_blit_area span_of(const xd_blit *blit, const cell *at, uint32_t index)
{
    xd_blit_area span = at->to;
    if (!at->staged)
        return span;
    int32_t i = (int32_t)index;
    if (blit->to.x_mask) {
        int32_t width = xd_blit_columns(&blit->to, 0, 0), right = span.x + span.width;
        int32_t start = (span.x & ~(width - 1)) + i * width;
        int32_t end = least(start + width, right);
        span.x = i ? start : span.x;
        span.width = end - span.x;
        return span;
    }
    int32_t height = span.width < SPAN ? SPAN / span.width : 1;
    int32_t pieces = (span.width + SPAN - 1) / SPAN, bottom = span.y + span.height;
    int32_t right = span.x + span.width;
    span.y += i / pieces * height;
    span.height = least(height, bottom - span.y);
    span.x += i % pieces * SPAN;
    span.width = least(SPAN, right - span.x);
    return span;
}

/* The place after a span. */
static uint64_t after(const xd_blit *blit, const cell *done, uint32_t index)
{
    if (index + 1 < done->spans)
        return cursor_at(done->row, done->column, index + 1);
    uint32_t column = done->column + (uint32_t)done->to.width;
    if (column < (uint32_t)(blit->width * blit->bytes))
        return cursor_at(done->row, column, 0);
    return cursor_at(done->row + (uint32_t)done->to.height, 0, 0);
}

/* Fills `size` bytes with copies of the first `unit`. */
static void repeat(uint8_t *bytes, uint32_t unit, uint32_t size)
{
    for (uint32_t done = unit; done < size; done *= 2)
        memcpy(bytes + done, bytes, done < size - done ? done : size - done);
}

static void fill(uint8_t *bytes, uint32_t color, uint32_t unit, uint32_t size)
{
    memcpy(bytes, &color, unit);
    repeat(bytes, unit, size);
}

/* The pattern of a span, as rows; and of a transparent one, clears what is not written in `mask`. */
static void make_pattern(const xd_blit *blit, const xd_blit_area *to, uint8_t *rows, uint8_t *mask)
{
    uint32_t bytes = blit->bytes, pixels = (uint32_t)to->width / bytes, x = (uint32_t)to->x / bytes;
    for (int32_t i = 0; i < to->height; i++, rows += to->width, mask += to->width) {
        uint32_t line = ((uint32_t)(to->y + i) + blit->pattern_top) & 7;
        uint8_t eight[8 * 4];
        for (uint32_t j = 0; j < 8; j++)
            memcpy(eight + j * bytes, blit->data + (line * 8 + ((x + j + blit->pattern_left) & 7)) * bytes, bytes);
        uint32_t first = 8 * bytes < (uint32_t)to->width ? 8 * bytes : (uint32_t)to->width;
        memcpy(rows, eight, first);
        repeat(rows, first, (uint32_t)to->width);
        if (!(blit->flags & XD_BLIT_PATTERN_TRANSPARENT))
            continue;
        for (uint32_t j = 0; j < pixels; j++)
            if (!(blit->pattern_bits >> (line * 8 + 7 - ((x + j + blit->pattern_left) & 7)) & 1))
                memset(mask + j * bytes, 0, bytes);
    }
}

/* Reads the bytes `first`.. of a monochrome source; at most half a KiB. */
static int read_mono(const xd_blit *blit, xd_gpu_memory *memory, const xd_gpu_space *space, int64_t first,
                     uint8_t *bytes, uint32_t size)
{
    if (blit->source == XD_SOURCE_MONO) {
        xd_blit_surface line = {.base = blit->mono_address + (uint64_t)first};
        return xd_blit_read(memory, space, &line, (xd_blit_area){0, 0, (int32_t)size, 1}, bytes);
    }
    for (uint32_t i = 0; i < size; i++)
        bytes[i] = first + i < XD_BLIT_DATA ? blit->data[first + i] : 0;
    return XD_GM_DONE;
}

/* The monochrome source of a span, in its two colours, as rows; `mask` as make_pattern. */
static int make_mono(const xd_blit *blit, xd_gpu_memory *memory, const xd_gpu_space *space, const xd_blit_area *to,
                     uint8_t *rows, uint8_t *mask)
{
    uint32_t bytes = blit->bytes, pixels = (uint32_t)to->width / bytes;
    int32_t x = to->x / blit->bytes + blit->from_left - blit->left, y = to->y + blit->from_top - blit->top;
    for (int32_t i = 0; i < to->height; i++, rows += to->width, mask += to->width) {
        int64_t bit = (int64_t)(y + i) * blit->row_bits + blit->first_bit + x;
        uint32_t skipped = (uint32_t)(bit & 7);
        uint8_t bits[SPAN / 8 + 1];
        if (read_mono(blit, memory, space, bit >> 3, bits, (skipped + pixels + 7) / 8))
            return XD_GM_AGAIN;
        for (uint32_t j = 0; j < pixels; j++) {
            bool set = bits[(skipped + j) / 8] >> (7 - (skipped + j) % 8) & 1;
            memcpy(rows + j * bytes, set ? &blit->foreground : &blit->background, bytes);
            if (!set && blit->flags & XD_BLIT_SOURCE_TRANSPARENT)
                memset(mask + j * bytes, 0, bytes);
        }
    }
    return XD_GM_DONE;
}

/* What a span of this blit needs. */
typedef struct needs {
    bool pattern, source, destination, mask;
} needs;

static needs needs_of(const xd_blit *blit)
{
    bool mono = blit->source > XD_SOURCE_COLOR;
    bool transparent = blit->flags & (XD_BLIT_SOURCE_TRANSPARENT | XD_BLIT_PATTERN_TRANSPARENT);
    needs of = {.mask = transparent || blit->write_mask != UINT32_MAX};
    of.destination = of.mask || xd_raster_uses_destination(blit->raster);
    of.source = blit->source && (xd_raster_uses_source(blit->raster) || (mono && transparent));
    of.pattern = blit->pattern && (xd_raster_uses_pattern(blit->raster) || (!mono && transparent));
    return of;
}

/*
 * Reads an 8x8 pattern of colours, once for each blit. It never leaves a page, since it lies on a boundary of its size.
 */
static int load_pattern(xd_blit *blit, xd_gpu_memory *memory, const xd_gpu_space *space)
{
    if (blit->pattern != XD_PATTERN_IN_MEMORY)
        return XD_GM_DONE;
    xd_blit_surface line = {.base = blit->pattern_address};
    if (xd_blit_read(memory, space, &line, (xd_blit_area){0, 0, 64 * blit->bytes, 1}, blit->data))
        return XD_GM_AGAIN;
    blit->pattern = XD_PATTERN_8X8;
    return XD_GM_DONE;
}

/* What a turn works with. */
typedef struct turn {
    xd_blit *blit;
    xd_gpu_memory *memory;
    const xd_gpu_space *space;
    uint8_t *bounce;
    uint64_t *budget;
    needs need;
    stage *staged;
} turn;

static void spend(const turn *now, uint64_t cost)
{
    *now->budget -= cost < *now->budget ? cost : *now->budget;
}

/* Bytes of an area, and no less than what its pieces cost. */
static uint64_t cost_of(const xd_blit_area *area)
{
    uint64_t bytes = (uint64_t)(area->width * area->height), rows = (uint64_t)area->height * LEAST_COST;
    return bytes > rows ? bytes : rows;
}

/* Reads the source of a cell, unless this turn has it. */
static int fill_stage(const turn *now, const cell *at)
{
    stage *to = now->staged;
    if (to->valid && to->row == at->row && to->column == at->column)
        return XD_GM_DONE;
    xd_blit_area from = source_of(now->blit, &at->to);
    to->valid = false;
    if (xd_blit_read(now->memory, now->space, &now->blit->from, from, to->bytes))
        return XD_GM_AGAIN;
    spend(now, cost_of(&from));
    to->valid = true;
    to->row = at->row;
    to->column = at->column;
    return XD_GM_DONE;
}

/* Copies rows that lie `stride` apart. */
static void gather(const uint8_t *from, uint32_t stride, const xd_blit_area *area, uint8_t *rows)
{
    uint32_t width = (uint32_t)area->width;
    if (stride == width) {
        memcpy(rows, from, (size_t)width * (size_t)area->height);
        return;
    }
    for (int32_t i = 0; i < area->height; i++, from += stride, rows += width)
        memcpy(rows, from, width);
}

/* Computes the final bytes of a span of a cell into the bounce area. Returns XD_GM_DONE or XD_GM_AGAIN. */
static int compute(const turn *now, const cell *at, const xd_blit_area *to)
{
    xd_blit *blit = now->blit;
    const needs *need = &now->need;
    uint32_t width = (uint32_t)to->width, size = width * (uint32_t)to->height;
    uint8_t result[SPAN], pattern[SPAN], before[SPAN], mask[SPAN];
    uint8_t *rows = blit->to.x_mask ? result : now->bounce;
    const uint8_t *p = zeros, *s = zeros, *d = zeros;
    if (need->pattern && load_pattern(blit, now->memory, now->space))
        return XD_GM_AGAIN;
    if (need->mask)
        fill(mask, blit->write_mask, 4, SPAN); /* pixels of other sizes have no mask: all ones */
    if (need->source && at->staged) {
        bool copies = blit->raster == SOURCE_COPY && !need->mask && blit->to.x_mask;
        xd_blit_area from = source_of(blit, to);
        if (copies && xd_blit_same_place(&blit->to, to->x, to->y, &blit->from, from.x, from.y)) {
            spend(now, cost_of(&from));
            return xd_blit_read_image(now->memory, now->space, &blit->from, from, now->bounce);
        }
        if (fill_stage(now, at))
            return XD_GM_AGAIN;
        uint32_t stride = (uint32_t)at->to.width;
        uint32_t row = (uint32_t)(to->y - at->to.y), column = (uint32_t)(to->x - at->to.x);
        const uint8_t *first = now->staged->bytes + row * stride + column;
        if (copies) {
            xd_blit_arrange(&blit->to, *to, first, stride, now->bounce);
            return XD_GM_DONE;
        }
        gather(first, stride, to, rows);
        s = rows;
    } else if (need->source) {
        if (blit->source == XD_SOURCE_COLOR
                ? xd_blit_read(now->memory, now->space, &blit->from, source_of(blit, to), rows)
                : make_mono(blit, now->memory, now->space, to, rows, mask))
            return XD_GM_AGAIN;
        s = rows;
    }
    if (need->destination) {
        if (xd_blit_read(now->memory, now->space, &blit->to, *to, before))
            return XD_GM_AGAIN;
        d = before;
    }
    if (need->pattern) {
        uint8_t *made = blit->raster == PATTERN_COPY ? rows : pattern;
        if (blit->pattern == XD_PATTERN_SOLID)
            fill(made, blit->solid, blit->bytes, size);
        else
            make_pattern(blit, to, made, mask);
        p = made;
    }
    bool is_made = (blit->raster == PATTERN_COPY && need->pattern) || (blit->raster == SOURCE_COPY && need->source);
    if (!is_made)
        xd_raster(blit->raster, p, s, d, rows, size);
    if (need->mask)
        xd_raster_mask(mask, before, rows, size);
    if (blit->to.x_mask)
        xd_blit_arrange(&blit->to, *to, rows, width, now->bounce);
    return XD_GM_DONE;
}

int xd_blit_run(xd_blit *blit, xd_gpu_memory *memory, const xd_gpu_space *space, uint8_t *bounce, uint64_t *budget)
{
    stage staged;
    staged.valid = false;
    turn now = {blit, memory, space, bounce, budget, needs_of(blit), &staged};
    uint64_t cursor = blit->cursor;
    while ((cursor & ROW_MASK) < (uint32_t)blit->height) {
        if (!*budget)
            return XD_BLIT_BUDGET;
        cell at = cell_at(blit, cursor);
        uint32_t index = (uint32_t)(cursor >> INDEX_SHIFT & INDEX_MASK);
        xd_blit_area to = span_of(blit, &at, index);
        uint64_t place = cursor_at(at.row, at.column, index);
        uint32_t stored = 0;
        if (cursor & BOUNCED) {
            stored = (uint32_t)(cursor >> STORED_SHIFT & STORED_MASK);
        } else {
            if (compute(&now, &at, &to))
                return XD_GM_AGAIN;
            commit(blit, place | BOUNCED);
        }
        int result = xd_blit_write(memory, space, &blit->to, to, bounce, &stored);
        spend(&now, cost_of(&to) * (1u + (now.need.source && !at.staged) + now.need.destination));
        if (result) {
            /* Before its first byte is written, a span is computed again: the guest may store meanwhile. */
            commit(blit, stored ? place | BOUNCED | (uint64_t)stored << STORED_SHIFT : place);
            return result;
        }
        cursor = after(blit, &at, index);
        commit(blit, cursor);
    }
    return XD_GM_DONE;
}
