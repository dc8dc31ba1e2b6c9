#ifndef XD_BLIT_SURFACE_H
#define XD_BLIT_SURFACE_H
#include <stdint.h>
#include "gpu_memory.h"

/*
 * Surfaces of the blitter: how rows of pixels lie in GPU memory.
 *
 * A linear surface has one row after the other. A tiled one has tiles of 4 KiB, or of 64 KiB, in rows from left to
 * right; some bits of an offset in a tile come from x, in bytes, and the others from y. The pages of a 64 KiB tile are
 * arranged as 4 KiB tiles of the same depth. A negative pitch means that rows go up from the base.
 *
 * A rectangle is handled in blocks. The bytes of a block are at most 4 KiB, in one of two orders: *rows* have one row
 * of the block after the other without a gap; a *page image* has each byte where it belongs in its 4 KiB page. A block
 * of a tiled surface never leaves a page of it. Coordinates are not negative.
 *
 * memory, space: the GPU's memory, and where in it the surface is. area: bytes of the surface. The thread that serves
 * the guest calls every function here.
 */
enum xd_blit_tiling { XD_TILING_LINEAR = 0, XD_TILING_X = 1, XD_TILING_Y = 2, XD_TILING_YF = 3, XD_TILING_YS = 4 };

/*
 * base: where the pixel (0, 0) lies. pitch: bytes from a row to the next. x_mask, y_mask: bits of an offset in a tile
 * that come from x and y; 0 if the surface is linear.
 */
typedef struct xd_blit_surface {
    uint64_t base;
    int32_t pitch;
    uint16_t x_mask;
    uint16_t y_mask;
} xd_blit_surface;

/* Bytes x.. of the rows y.. of a surface; `width` is in bytes. */
typedef struct xd_blit_area {
    int32_t x, y;
    int32_t width, height;
} xd_blit_area;

/*
 * Returns a surface as a command describes it: from `base` on, pixels of `bytes` bytes; `pitch` in bytes, or in dwords
 * if `tiling` is not XD_TILING_LINEAR. Called by blit_command.c.
 */
xd_blit_surface xd_blit_surface_of(uint64_t base, int32_t pitch, enum xd_blit_tiling tiling, uint32_t bytes);

/*
 * Returns how many bytes of a row lie in one page of a tiled surface, from `x` to the right, or, if `backwards`, from
 * the byte before `x` to the left. Called by blit.c.
 */
int32_t xd_blit_columns(const xd_blit_surface *surface, int32_t x, int backwards);
/* Returns how many rows lie in one page of a tiled surface, from `y` down, or up if `backwards`. Called by blit.c. */
int32_t xd_blit_rows(const xd_blit_surface *surface, int32_t y, int backwards);
/* Returns the address of byte `x` of row `y`. Called by blit.c. */
uint64_t xd_blit_address(const xd_blit_surface *surface, int32_t x, int32_t y);

/*
 * Reads an area, anywhere in the surface, into `rows`, which have no gaps. What is not mapped reads as zeros. Returns
 * XD_GM_DONE or XD_GM_AGAIN. Called by blit.c.
 */
int xd_blit_read(xd_gpu_memory *memory, const xd_gpu_space *space, const xd_blit_surface *surface, xd_blit_area area,
                 uint8_t *rows);
/*
 * Returns whether a block at byte `x` of row `y` of the tiled surface `one` has the same page image as one of the same
 * size at `other_x` and `other_y` of `other`. Called by blit.c.
 */
int xd_blit_same_place(const xd_blit_surface *one, int32_t x, int32_t y, const xd_blit_surface *other, int32_t other_x,
                       int32_t other_y);
/*
 * Reads the page image of a block of a tiled surface into `image`, which has room for 4 KiB; other bytes between its
 * first and its last, too. Returns XD_GM_DONE or XD_GM_AGAIN. Called by blit.c.
 */
int xd_blit_read_image(xd_gpu_memory *memory, const xd_gpu_space *space, const xd_blit_surface *surface,
                       xd_blit_area area, uint8_t *image);
/*
 * Makes the page image of a block from its rows, which are `stride` bytes apart; `image` has room for 4 KiB. Called by
 * blit.c.
 */
void xd_blit_arrange(const xd_blit_surface *surface, xd_blit_area area, const uint8_t *rows, uint32_t stride,
                     uint8_t *image);
/*
 * Writes a block: `bytes` are rows if the surface is linear, else a page image.
 *
 * stored: how many of its bytes are written already, in the order in which this function writes; it is kept up to date.
 * Returns XD_GM_DONE; XD_GM_AGAIN or XD_GM_DIRECTORY, as gpu_memory.h, and then another call goes on. What cannot be
 * written vanishes. Called by blit.c.
 */
int xd_blit_write(xd_gpu_memory *memory, const xd_gpu_space *space, const xd_blit_surface *surface, xd_blit_area area,
                  const uint8_t *bytes, uint32_t *stored);

#endif
