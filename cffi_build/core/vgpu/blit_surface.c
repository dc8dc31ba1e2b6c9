/* How pixels of the blitter's surfaces lie in memory: linear, and tiled X, Y, Yf and Ys. */
#include "blit_surface.h"

#include <stdbool.h>
#include <string.h>

/* The granule of all tilings: 16 bytes of a row lie together, in an X tile even 512. */
enum { OWORD = 16, X_ROW = 512, PAGE_MASK = XD_FRAME_SIZE - 1 };

/*
 * Which bits of an offset in a tile come from x, by tiling and log2 of a pixel's bytes. Sources: the swizzles of
 * Intel's graphics memory library (gmmlib, "Gen9 Swizzles"), and the words of drm_fourcc.h, from which the tests build
 * them.
 */
enum { DEPTHS = 5 };
static const uint16_t yf_x[DEPTHS] = {0x0a0f, 0x0a8f, 0x0a8f, 0x0acf, 0x0acf};
static const uint16_t ys_x[DEPTHS] = {0xaa0f, 0xaa8f, 0xaa8f, 0xaacf, 0xaacf};
enum { X_TILE_X = 0x01ff, Y_TILE_X = 0x0e0f, TILE_4K = 0x0fff, TILE_64K = 0xffff };

static uint32_t bits_of(uint32_t mask)
{
    return (uint32_t)__builtin_popcount(mask);
}

/* Puts the low bits of `value` to the bits of `mask`, in order. */
static uint32_t deposit(uint32_t value, uint32_t mask)
{
    uint32_t result = 0;
    for (; mask; mask &= mask - 1, value >>= 1)
        if (value & 1)
            result |= mask & -mask;
    return result;
}

/* The deposited number after a deposited one, or the one before it; it wraps around. */
static uint32_t next(uint32_t deposited, uint32_t mask)
{
    return (deposited - mask) & mask;
}

xd_blit_surface xd_blit_surface_of(uint64_t base, int32_t pitch, enum xd_blit_tiling tiling, uint32_t bytes)
{
    uint32_t depth = (uint32_t)__builtin_ctz(bytes);
    xd_blit_surface surface = {.base = base, .pitch = pitch};
    if (tiling == XD_TILING_LINEAR)
        return surface;
    surface.pitch = pitch * 4;
    surface.x_mask = tiling == XD_TILING_X   ? X_TILE_X
                     : tiling == XD_TILING_Y ? Y_TILE_X
                     : tiling == XD_TILING_YF ? yf_x[depth]
                                              : ys_x[depth];
    uint32_t whole = tiling == XD_TILING_YS ? TILE_64K : TILE_4K;
    surface.y_mask = (uint16_t)(whole & ~(uint32_t)surface.x_mask);
    surface.base &= ~(uint64_t)whole;
    return surface;
}

static int32_t page_width(const xd_blit_surface *surface)
{
    return (int32_t)1 << bits_of(surface->x_mask & PAGE_MASK);
}

static int32_t page_height(const xd_blit_surface *surface)
{
    return (int32_t)1 << bits_of(surface->y_mask & PAGE_MASK);
}

/* The row of tiles counts from here on: rows of a negative pitch go up. */
static int32_t down(const xd_blit_surface *surface, int32_t y)
{
    return surface->pitch < 0 ? -y : y;
}

int32_t xd_blit_columns(const xd_blit_surface *surface, int32_t x, int backwards)
{
    int32_t width = page_width(surface);
    return backwards ? ((x - 1) & (width - 1)) + 1 : width - (x & (width - 1));
}

int32_t xd_blit_rows(const xd_blit_surface *surface, int32_t y, int backwards)
{
    int32_t height = page_height(surface);
    int32_t within = down(surface, y) & (height - 1);
    bool up = (backwards != 0) != (surface->pitch < 0);
    return up ? within + 1 : height - within;
}

uint64_t xd_blit_address(const xd_blit_surface *surface, int32_t x, int32_t y)
{
    if (!surface->x_mask)
        return surface->base + (uint64_t)((int64_t)y * surface->pitch + x);
    uint32_t x_bits = bits_of(surface->x_mask), y_bits = bits_of(surface->y_mask);
    int32_t row = down(surface, y);
    int64_t tiles_a_row = (surface->pitch < 0 ? -(int64_t)surface->pitch : surface->pitch) >> x_bits;
    int64_t tile = (int64_t)(row >> y_bits) * tiles_a_row + (x >> x_bits);
    uint32_t within = deposit((uint32_t)x, surface->x_mask) | deposit((uint32_t)row, surface->y_mask);
    return surface->base + ((uint64_t)tile << (x_bits + y_bits)) + within;
}

/*
 * The bits of an offset in a page, and where a block lies there: the place of its first byte, and how its rows follow.
 */
typedef struct place {
    uint32_t x_mask, y_mask; /* without the bits of a byte's place in its OWORD */
    uint32_t column, row;    /* deposited, of the block's first byte */
    uint32_t skipped;        /* bytes of the first OWORD before it */
    bool upwards;            /* the next row lies before this one */
} place;

static place place_of(const xd_blit_surface *surface, const xd_blit_area *area)
{
    place at = {.x_mask = surface->x_mask & PAGE_MASK & ~(OWORD - 1), .y_mask = surface->y_mask & PAGE_MASK};
    at.column = deposit((uint32_t)area->x / OWORD, at.x_mask);
    at.row = deposit((uint32_t)down(surface, area->y), at.y_mask);
    at.skipped = (uint32_t)area->x % OWORD;
    at.upwards = surface->pitch < 0;
    return at;
}

static uint32_t least_of(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t row_after(const place *at, uint32_t row)
{
    return at->upwards ? (row - 1) & at->y_mask : next(row, at->y_mask);
}

/* The OWORDs of a block's rows: where they are in the first row, and how many. */
typedef struct columns {
    uint32_t offsets[X_ROW / OWORD];
    uint32_t count;
} columns;

static inline void copy_oword(uint8_t *image, uint8_t *rows, bool to_image)
{
    to_image ? memcpy(image, rows, OWORD) : memcpy(rows, image, OWORD);
}

/*
 * Between the rows of a block, which are `stride` bytes apart, and its page image. Inline in one caller for each
 * direction, since all tiled blits spend their time here.
 */
static inline __attribute__((always_inline)) void arrange(const xd_blit_surface *surface, const xd_blit_area *area,
                                                          uint8_t *rows, uint32_t stride, uint8_t *image, bool to_image)
{
    place at = place_of(surface, area);
    uint32_t width = (uint32_t)area->width, row = at.row;
    if (surface->x_mask == X_TILE_X) {
        image += (uint32_t)area->x & (X_ROW - 1);
        for (int32_t i = 0; i < area->height; i++, rows += stride, row = row_after(&at, row))
            to_image ? memcpy(image + row, rows, width) : memcpy(rows, image + row, width);
        return;
    }
    /* bytes of a first OWORD that is not whole, and of a last one */
    uint32_t first = at.skipped ? least_of(OWORD - at.skipped, width) : 0;
    uint32_t last = (width - first) % OWORD, column = at.column;
    if (first)
        column = next(column, at.x_mask);
    columns whole = {.count = (width - first) / OWORD};
    for (uint32_t i = 0; i < whole.count; i++, column = next(column, at.x_mask))
        whole.offsets[i] = column;
    for (int32_t i = 0; i < area->height;) {
        /* four rows of an OWORD lie together, in a line of the cache */
        bool four = !at.upwards && !(row & 3 * OWORD) && area->height - i >= 4;
        uint8_t *line = image + row, *bytes = rows + first;
        if (four)
            for (uint32_t j = 0; j < whole.count; j++, bytes += OWORD)
                for (uint32_t k = 0; k < 4; k++)
                    copy_oword(line + whole.offsets[j] + k * OWORD, bytes + k * stride, to_image);
        else
            for (uint32_t j = 0; j < whole.count; j++, bytes += OWORD)
                copy_oword(line + whole.offsets[j], bytes, to_image);
        for (uint32_t k = 0; k < (four ? 4 : 1); k++, i++, rows += stride, row = row_after(&at, row)) {
            uint8_t *left = image + row + at.column + at.skipped, *right = image + row + column;
            if (first)
                to_image ? memcpy(left, rows, first) : memcpy(rows, left, first);
            if (last)
                to_image ? memcpy(right, rows + width - last, last) : memcpy(rows + width - last, right, last);
        }
    }
}

void xd_blit_arrange(const xd_blit_surface *surface, xd_blit_area area, const uint8_t *rows, uint32_t stride,
                     uint8_t *image)
{
    arrange(surface, &area, (uint8_t *)(uintptr_t)rows, stride, image, true); /* which only reads rows */
}

/* Bytes up to the end of the page of `address`, at most `size`. */
static uint32_t in_page(uint64_t address, uint32_t size)
{
    uint32_t left = XD_FRAME_SIZE - (uint32_t)(address & PAGE_MASK);
    return left < size ? left : size;
}

/* Reads `size` bytes that may lie in two pages. */
static int read_line(xd_gpu_memory *memory, const xd_gpu_space *space, uint64_t address, uint8_t *to, uint32_t size)
{
    while (size) {
        uint32_t piece = in_page(address, size);
        if (xd_gm_read(memory, space, address, to, piece) == XD_GM_AGAIN)
            return XD_GM_AGAIN;
        address += piece;
        to += piece;
        size -= piece;
    }
    return XD_GM_DONE;
}

int xd_blit_read_image(xd_gpu_memory *memory, const xd_gpu_space *space, const xd_blit_surface *surface,
                       xd_blit_area area, uint8_t *image)
{
    int32_t right = area.x + area.width - 1, bottom = area.y + area.height - 1;
    bool upwards = surface->pitch < 0;
    uint64_t first = xd_blit_address(surface, area.x, upwards ? bottom : area.y);
    uint64_t last = xd_blit_address(surface, right, upwards ? area.y : bottom);
    uint8_t *to = image + (first & PAGE_MASK);
    return xd_gm_read(memory, space, first, to, (uint32_t)(last - first + 1)) == XD_GM_AGAIN ? XD_GM_AGAIN : XD_GM_DONE;
}

int xd_blit_same_place(const xd_blit_surface *one, int32_t x, int32_t y, const xd_blit_surface *other, int32_t other_x,
                       int32_t other_y)
{
    if (one->x_mask != other->x_mask || one->y_mask != other->y_mask || (one->pitch < 0) != (other->pitch < 0))
        return 0;
    uint64_t difference = xd_blit_address(one, x, y) ^ xd_blit_address(other, other_x, other_y);
    return !(difference & PAGE_MASK);
}

/* Reads an area of one page of a tiled surface. */
static int read_page(xd_gpu_memory *memory, const xd_gpu_space *space, const xd_blit_surface *surface,
                     const xd_blit_area *area, uint8_t *rows, uint32_t stride)
{
    uint8_t image[XD_FRAME_SIZE];
    if (xd_blit_read_image(memory, space, surface, *area, image))
        return XD_GM_AGAIN;
    arrange(surface, area, rows, stride, image, false);
    return XD_GM_DONE;
}

static int32_t least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* Reads an area of a tiled surface, page by page. */
static int read_tiled(xd_gpu_memory *memory, const xd_gpu_space *space, const xd_blit_surface *surface,
                      const xd_blit_area *area, uint8_t *rows)
{
    int32_t right = area->x + area->width, bottom = area->y + area->height;
    xd_blit_area part = *area;
    for (part.y = area->y; part.y < bottom; part.y += part.height) {
        part.height = least(xd_blit_rows(surface, part.y, 0), bottom - part.y);
        for (part.x = area->x; part.x < right; part.x += part.width) {
            part.width = least(xd_blit_columns(surface, part.x, 0), right - part.x);
            uint8_t *to = rows + (size_t)(part.y - area->y) * (size_t)area->width + (size_t)(part.x - area->x);
            if (read_page(memory, space, surface, &part, to, (uint32_t)area->width))
                return XD_GM_AGAIN;
        }
    }
    return XD_GM_DONE;
}

int xd_blit_read(xd_gpu_memory *memory, const xd_gpu_space *space, const xd_blit_surface *surface, xd_blit_area area,
                 uint8_t *rows)
{
    if (surface->x_mask)
        return read_tiled(memory, space, surface, &area, rows);
    for (int32_t i = 0; i < area.height; i++, rows += area.width)
        if (read_line(memory, space, xd_blit_address(surface, area.x, area.y + i), rows, (uint32_t)area.width))
            return XD_GM_AGAIN;
    return XD_GM_DONE;
}

/* A block that is being written: `done` bytes were passed, and the first `stored` of all are written. */
typedef struct writer {
    xd_gpu_memory *memory;
    const xd_gpu_space *space;
    uint32_t done, stored;
} writer;

/* Writes to a frame that has page tables: in naturally aligned stores, as a CPU would make them. */
static int write_table(writer *to, uint64_t address, const uint8_t *from, uint32_t size)
{
    while (size) {
        uint32_t piece = 8;
        while (piece > size || (address & (piece - 1)))
            piece /= 2;
        uint64_t value = 0;
        memcpy(&value, from, piece);
        int result = xd_gm_write_table(to->memory, to->space, address, value, piece);
        if (result == XD_GM_AGAIN)
            return result;
        to->done += piece;
        to->stored = to->done;
        if (result == XD_GM_DIRECTORY)
            return result;
        address += piece;
        from += piece;
        size -= piece;
    }
    return XD_GM_DONE;
}

/* Writes `size` bytes that lie together and may lie in two pages, except those that are stored already. */
static int write_line(writer *to, uint64_t address, const uint8_t *from, uint32_t size)
{
    if (to->done < to->stored) {
        uint32_t passed = to->stored - to->done < size ? to->stored - to->done : size;
        to->done += passed;
        address += passed;
        from += passed;
        size -= passed;
    }
    while (size) {
        uint32_t piece = in_page(address, size);
        int result = xd_gm_write(to->memory, to->space, address, from, piece);
        if (result == XD_GM_AGAIN)
            return result;
        if (result == XD_GM_TRACKED) {
            result = write_table(to, address, from, piece);
            if (result)
                return result;
        } else {
            to->done += piece;
            to->stored = to->done;
        }
        address += piece;
        from += piece;
        size -= piece;
    }
    return XD_GM_DONE;
}

/*
 * Writes what a block covers of a page. Bytes that lie together are written together: down the OWORDs of a column,
 * since in all tilings but X the lowest bits above an OWORD come from y.
 */
static int write_part(writer *to, const xd_blit_surface *surface, const xd_blit_area *area, uint64_t page,
                      const uint8_t *image)
{
    place at = place_of(surface, area);
    uint32_t first_row = at.row;
    if (at.upwards)
        first_row = deposit((uint32_t)down(surface, area->y + area->height - 1), at.y_mask);
    uint32_t width = (uint32_t)area->width, column = at.column, start = at.skipped;
    uint32_t most = surface->x_mask == X_TILE_X ? X_ROW : OWORD;
    if (most == X_ROW) {
        start = (uint32_t)area->x & (X_ROW - 1);
        column = 0;
    }
    for (uint32_t x = 0; x < width; start = 0, column = next(column, at.x_mask)) {
        uint32_t size = most - start < width - x ? most - start : width - x;
        uint32_t row = first_row, offset = row + column + start, length = 0;
        for (int32_t i = 0; i < area->height; i++, row = next(row, at.y_mask)) {
            uint32_t here = row + column + start;
            if (here != offset + length) {
                int result = write_line(to, page + offset, image + offset, length);
                if (result)
                    return result;
                offset = here;
                length = 0;
            }
            length += size;
        }
        int result = write_line(to, page + offset, image + offset, length);
        if (result)
            return result;
        x += size;
    }
    return XD_GM_DONE;
}

int xd_blit_write(xd_gpu_memory *memory, const xd_gpu_space *space, const xd_blit_surface *surface, xd_blit_area area,
                  const uint8_t *bytes, uint32_t *stored)
{
    writer to = {.memory = memory, .space = space, .stored = *stored};
    int result = XD_GM_DONE;
    if (!surface->x_mask) {
        for (int32_t i = 0; i < area.height && !result; i++, bytes += area.width)
            result = write_line(&to, xd_blit_address(surface, area.x, area.y + i), bytes, (uint32_t)area.width);
    } else {
        uint64_t page = xd_blit_address(surface, area.x, area.y) & ~(uint64_t)PAGE_MASK;
        bool all = area.width == page_width(surface) && area.height == page_height(surface);
        result = all ? write_line(&to, page, bytes, XD_FRAME_SIZE) : write_part(&to, surface, &area, page, bytes);
    }
    *stored = to.stored;
    return result;
}
