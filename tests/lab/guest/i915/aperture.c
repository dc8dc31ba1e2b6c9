/* An object seen through the aperture: as it is, and through a fence as if it were linear. */
#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

#include "checks.h"
#include "surface.h"

#define PITCH 512u /* one row of tiles is one page */

static volatile uint32_t *aperture(const struct object *object)
{
    struct drm_i915_gem_mmap_offset offset = {.handle = object->handle, .flags = I915_MMAP_OFFSET_GTT};
    int result = call(object->file, DRM_IOCTL_I915_GEM_MMAP_OFFSET, &offset);
    if (result != 0)
        die("GEM_MMAP_OFFSET of the aperture", -result);
    void *pages = mmap(NULL, object->size, PROT_READ | PROT_WRITE, MAP_SHARED, object->file, (off_t)offset.offset);
    if (pages == MAP_FAILED)
        die("mapping the aperture", errno);
    return pages;
}

static void plain(int file)
{
    struct object object = object_new(file, PAGE_SIZE);
    object.dwords[1] = 0x1234;
    volatile uint32_t *window = aperture(&object);
    check(0x1234, window[1], "reading through the aperture");
    window[2] = 0x5678;
    ((volatile uint8_t *)window)[13] = 0x9a;
    check(0x5678, window[2], "reading what was written through the aperture");
    check(0x5678, object.dwords[2], "writing through the aperture");
    check(0x9a00, object.dwords[3], "writing a byte through the aperture");
    munmap((void *)(uintptr_t)window, object.size);
    object_end(&object);
}

/* One row of tiles, of which every 8th dword is written and read. */
static void tiled(int file, enum tiling tiling)
{
    uint32_t width = tiling == TILE_X ? 512 : 128, height = PAGE_SIZE / width, pitch = tiling == TILE_X ? PITCH : 128;
    struct object object = object_new(file, PAGE_SIZE);
    struct drm_i915_gem_set_tiling set = {
        .handle = object.handle,
        .tiling_mode = tiling == TILE_X ? I915_TILING_X : I915_TILING_Y,
        .stride = pitch,
    };
    int result = call(file, DRM_IOCTL_I915_GEM_SET_TILING, &set);
    if (result != 0)
        die("GEM_SET_TILING", -result);
    check(I915_BIT_6_SWIZZLE_NONE, set.swizzle_mode, "swizzling of tiles %s", tiling_names[tiling]);
    uint8_t *bytes = (uint8_t *)object.dwords;
    volatile uint32_t *window = aperture(&object);
    unsigned wrong_reads = 0, wrong_writes = 0;
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x += 32) {
            uint32_t value = y << 16 | x;
            *(uint32_t *)(void *)(bytes + surface_offset(tiling, pitch, x, y)) = value;
            wrong_reads += window[(y * pitch + x) / 4] != value;
            window[(y * pitch + x) / 4 + 1] = ~value;
            wrong_writes += *(volatile uint32_t *)(void *)(bytes + surface_offset(tiling, pitch, x + 4, y)) != ~value;
        }
    check(0, wrong_reads, "reads of a tiled object through a fence %s", tiling_names[tiling]);
    check(0, wrong_writes, "writes of a tiled object through a fence %s", tiling_names[tiling]);
    munmap((void *)(uintptr_t)window, object.size);
    object_end(&object);
}

void check_aperture(unsigned size)
{
    (void)size;
    int file = gpu_open();
    plain(file);
    tiled(file, TILE_X);
    tiled(file, TILE_Y);
}
