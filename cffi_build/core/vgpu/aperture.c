#include "aperture.h"

enum { COLUMN = 16, PITCH_UNIT = 128, PITCH_MASK = 0x7ff, VALID = 1 << 0, Y_TILES = 1 << 1 };
enum { X_WIDTH = 512, X_ROWS = 8, Y_WIDTH = 128, Y_ROWS = 32, PAGE_MASK = XD_FRAME_SIZE - 1 };

static const xd_gpu_space ggtt = {.level = 0};

static uint64_t tiled(uint64_t offset, uint64_t pitch, int y_tiles)
{
    uint64_t y = offset / pitch, x = offset % pitch;
    if (!y_tiles)
        return y / X_ROWS * X_ROWS * pitch + x / X_WIDTH * XD_FRAME_SIZE + y % X_ROWS * X_WIDTH + x % X_WIDTH;
    uint64_t in_tile = x % Y_WIDTH / COLUMN * (COLUMN * Y_ROWS) + y % Y_ROWS * COLUMN + x % COLUMN;
    return y / Y_ROWS * Y_ROWS * pitch + x / Y_WIDTH * XD_FRAME_SIZE + in_tile;
}

/* Returns the address in the GGTT of what is at `offset`. */
static uint64_t place(const xd_aperture *aperture, uint64_t offset)
{
    for (uint64_t i = 0; i < aperture->fence_count; i++) {
        uint64_t fence = __atomic_load_n(&aperture->fences[i], __ATOMIC_RELAXED);
        uint64_t first = (uint32_t)fence & ~(uint64_t)PAGE_MASK, last = fence >> 32 & ~(uint64_t)PAGE_MASK;
        if (fence & VALID && offset >= first && offset < last + XD_FRAME_SIZE) {
            uint64_t pitch = ((fence >> 32 & PITCH_MASK) + 1) * PITCH_UNIT;
            return first + tiled(offset - first, pitch, fence & Y_TILES);
        }
    }
    return offset;
}

/* Returns the result of an access that nobody but the CPU made. */
static int of_the_cpu(const xd_aperture *aperture, int result)
{
    aperture->memory->fault.valid = 0;
    return result == XD_GM_FAULT ? XD_GM_DONE : result;
}

int xd_aperture_splits(uint64_t offset, uint32_t size)
{
    return offset % COLUMN + size > COLUMN;
}

int xd_aperture_read(const xd_aperture *aperture, uint64_t offset, uint32_t size, uint64_t *value)
{
    *value = 0;
    xd_gm_drop(aperture->memory);
    return of_the_cpu(aperture, xd_gm_read(aperture->memory, &ggtt, place(aperture, offset), value, size));
}

int xd_aperture_write(const xd_aperture *aperture, uint64_t offset, uint32_t size, uint64_t value)
{
    xd_gm_drop(aperture->memory);
    return of_the_cpu(aperture, xd_gm_write(aperture->memory, &ggtt, place(aperture, offset), &value, size));
}

int xd_aperture_write_table(const xd_aperture *aperture, uint64_t offset, uint32_t size, uint64_t value)
{
    xd_gm_drop(aperture->memory);
    return of_the_cpu(aperture, xd_gm_write_table(aperture->memory, &ggtt, place(aperture, offset), value, size));
}
