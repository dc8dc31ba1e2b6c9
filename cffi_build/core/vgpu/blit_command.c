/* From the dwords of a blitter command to a rectangle, its surfaces and its operands. */
#include "blit_command.h"

#include <stdbool.h>
#include <string.h>

_Static_assert(sizeof(xd_blit) <= XD_BLIT_BYTES, "an engine's state has so much room for a blit");

/* Opcodes: header bits 28:22. */
enum {
    XY_SETUP = 0x01,
    XY_SETUP_CLIP = 0x03,
    XY_SETUP_MONO_PATTERN = 0x11,
    XY_PIXEL = 0x24,
    XY_SCANLINES = 0x25,
    XY_TEXT = 0x26,
    XY_TEXT_IMMEDIATE = 0x31,
    XY_FAST_COPY = 0x42,
    XY_COLOR = 0x50,
    XY_PAT = 0x51,
    XY_MONO_PAT = 0x52,
    XY_SRC_COPY = 0x53,
    XY_MONO_SRC_COPY = 0x54,
    XY_MONO_PAT_FIXED = 0x59,
    XY_MONO_SRC_COPY_IMMEDIATE = 0x71,
    XY_PAT_IMMEDIATE = 0x72
};

enum { SOURCE_COPY = 0xcc, DEPTH_32 = 3, CLIP_MASK = 0x7fff };
static const uint32_t SOLID_PATTERN = UINT32_C(1) << 31, CLIPPING = UINT32_C(1) << 30,
                      SOURCE_TRANSPARENT = UINT32_C(1) << 29, PATTERN_TRANSPARENT = UINT32_C(1) << 28;
static const uint64_t ADDRESS_MASK = (UINT64_C(1) << 48) - 1;

/* XY_MONO_PAT_FIXED_BLT, bits 18:15: horizontal, vertical, two diagonals, two crosses; screen doors, walking bits. */
static const uint64_t fixed_patterns[16] = {
    0x00000000ff000000, 0x0808080808080808, 0x0102040810204080, 0x8040201008040201,
    0x08080808ff080808, 0x8142241818244281, 0, 0,
    0xaa55aa55aa55aa55, 0x33cc33cc33cc33cc, 0x1122448811224488, 0xeeddbb77eeddbb77,
};

/* A rectangle as the command has it; X2 and Y2 are outside. */
typedef struct corners {
    int32_t x1, y1, x2, y2;
} corners;

static uint32_t opcode_of(uint32_t header)
{
    return header >> 22 & 0x7f;
}

/* Dwords that a command has at least; 0: it is none of ours. */
static uint32_t least_dwords(uint32_t opcode)
{
    switch (opcode) {
    case XY_PIXEL:
        return 2;
    case XY_SETUP_CLIP:
    case XY_SCANLINES:
    case XY_TEXT_IMMEDIATE:
        return 3;
    case XY_TEXT:
        return 5;
    case XY_PAT_IMMEDIATE:
        return 6;
    case XY_COLOR:
        return 7;
    case XY_PAT:
    case XY_MONO_PAT_FIXED:
    case XY_MONO_SRC_COPY_IMMEDIATE:
        return 8;
    case XY_SETUP:
    case XY_SETUP_MONO_PATTERN:
    case XY_FAST_COPY:
    case XY_MONO_PAT:
    case XY_SRC_COPY:
    case XY_MONO_SRC_COPY:
        return 10;
    default:
        return 0;
    }
}

static uint64_t address_of(const uint32_t *dwords)
{
    return (dwords[0] | (uint64_t)dwords[1] << 32) & ADDRESS_MASK;
}

static int32_t low(uint32_t dword)
{
    return (int16_t)(uint16_t)dword;
}

static int32_t high(uint32_t dword)
{
    return (int16_t)(uint16_t)(dword >> 16);
}

static int32_t greater(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

static int32_t least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static void set_clip(xd_blit *blit, const uint32_t *dwords)
{
    blit->setup.clip[0] = dwords[0];
    blit->setup.clip[1] = dwords[1];
}

static void set_up(xd_blit *blit, const uint32_t *dwords)
{
    blit->setup = (xd_blit_setup){
        .header = dwords[0],
        .control = dwords[1],
        .base = address_of(dwords + 4),
        .background = dwords[6],
        .foreground = dwords[7],
        .pattern = dwords[8] | (uint64_t)dwords[9] << 32,
    };
    set_clip(blit, dwords + 2);
}

/*
 * Cuts the rectangle: pixels whose source has negative coordinates are not drawn, nor what is outside of the clip
 * rectangle, or has negative coordinates without one. Returns whether a pixel is left.
 */
static bool cut(xd_blit *blit, corners to, bool clipping)
{
    const uint32_t *clip = blit->setup.clip;
    int32_t left = greater(to.x1, to.x1 - blit->from_left), top = greater(to.y1, to.y1 - blit->from_top);
    if (clipping) {
        left = greater(left, (int32_t)(clip[0] & CLIP_MASK));
        top = greater(top, (int32_t)(clip[0] >> 16 & CLIP_MASK));
        to.x2 = least(to.x2, (int32_t)(clip[1] & CLIP_MASK));
        to.y2 = least(to.y2, (int32_t)(clip[1] >> 16 & CLIP_MASK));
    }
    left = greater(left, 0);
    top = greater(top, 0);
    blit->from_left += left - to.x1;
    blit->from_top += top - to.y1;
    blit->left = left;
    blit->top = top;
    blit->width = to.x2 - left;
    blit->height = to.y2 - top;
    if (blit->width > 0 && blit->height > 0)
        return true;
    blit->width = blit->height = 0;
    return false;
}

/* What legacy commands have in common: control dword, destination, and the bits of the header. */
static void begin_legacy(xd_blit *blit, uint32_t header, uint32_t control, uint64_t base, uint32_t bcs_swctrl)
{
    static const uint8_t bytes[4] = {1, 2, 2, 4};
    uint32_t depth = control >> 24 & 3;
    enum xd_blit_tiling tiling = bcs_swctrl & 2         ? XD_TILING_Y
                                 : header & UINT32_C(1) << 11 ? XD_TILING_X
                                                        : XD_TILING_LINEAR;
    blit->bytes = bytes[depth];
    blit->raster = (uint8_t)(control >> 16);
    blit->to = xd_blit_surface_of(base, low(control), tiling, blit->bytes);
    blit->write_mask = UINT32_MAX;
    if (depth == DEPTH_32)
        blit->write_mask = (header >> 21 & 1 ? 0xff000000 : 0) | (header >> 20 & 1 ? 0x00ffffff : 0);
    blit->pattern_left = header >> 12 & 7;
    blit->pattern_top = header >> 8 & 7;
}

static void set_solid(xd_blit *blit, uint32_t color)
{
    blit->pattern = XD_PATTERN_SOLID;
    blit->solid = color;
}

static void set_pattern_in_memory(xd_blit *blit, uint64_t address)
{
    blit->pattern = XD_PATTERN_IN_MEMORY;
    blit->pattern_address = address & ADDRESS_MASK & ~((uint64_t)64 * blit->bytes - 1);
}

/* Expands a monochrome pattern to its colours. */
static void set_mono_pattern(xd_blit *blit, uint64_t bits, uint32_t background, uint32_t foreground, bool transparent)
{
    blit->pattern = XD_PATTERN_8X8;
    blit->pattern_bits = bits;
    if (transparent)
        blit->flags |= XD_BLIT_PATTERN_TRANSPARENT;
    for (uint32_t i = 0; i < 64; i++) {
        uint32_t color = bits >> (i & ~UINT32_C(7)) >> (7 - (i & 7)) & 1 ? foreground : background;
        memcpy(blit->data + i * blit->bytes, &color, blit->bytes);
    }
}

/* Copies immediate data; what is missing is zeros. Returns whether there was room for it. */
static bool set_data(xd_blit *blit, const uint32_t *dwords, uint32_t count)
{
    if (count > XD_BLIT_DATA / 4)
        return false;
    memset(blit->data, 0, sizeof(blit->data));
    memcpy(blit->data, dwords, (size_t)count * 4);
    return true;
}

/* A monochrome source belongs to the whole rectangle, drawn or not. */
static void set_mono(xd_blit *blit, uint8_t source, uint32_t control, uint32_t background, uint32_t foreground)
{
    blit->source = source;
    blit->background = background;
    blit->foreground = foreground;
    if (control & SOURCE_TRANSPARENT)
        blit->flags |= XD_BLIT_SOURCE_TRANSPARENT;
}

/* Scan lines of a monochrome source that is no text are word aligned, and start at a bit of their first byte. */
static void set_mono_lines(xd_blit *blit, uint32_t header, const corners *to)
{
    blit->first_bit = header >> 17 & 7;
    blit->row_bits = (blit->first_bit + to->x2 - to->x1 + 15) & ~15;
}

static void set_text(xd_blit *blit, uint32_t header, const corners *to)
{
    blit->row_bits = to->x2 - to->x1;
    if (header & UINT32_C(1) << 16)
        blit->row_bits = (blit->row_bits + 7) & ~7;
}

/*
 * If the bases are the same, a source to the left is copied from the right, and one above from the bottom: then nothing
 * is read after it was overwritten.
 */
static void set_direction(xd_blit *blit, uint64_t to_base, uint64_t from_base, const corners *to)
{
    if (to_base != from_base)
        return;
    blit->flags |= XD_BLIT_SAME_BASE;
    if (blit->from_left < to->x1)
        blit->flags |= XD_BLIT_RIGHT_TO_LEFT;
    if (blit->from_top < to->y1)
        blit->flags |= XD_BLIT_BOTTOM_TO_TOP;
}

static int begin_fast_copy(xd_blit *blit, const uint32_t *dwords)
{
    static const uint8_t bytes[8] = {1, 2, 0, 4, 8, 16, 0, 0};
    static const enum xd_blit_tiling tilings[4] = {XD_TILING_LINEAR, XD_TILING_X, XD_TILING_Y, XD_TILING_YS};
    enum xd_blit_tiling to = tilings[dwords[0] >> 13 & 3], from = tilings[dwords[0] >> 20 & 3];
    corners rectangle = {low(dwords[2]), high(dwords[2]), low(dwords[3]), high(dwords[3])};
    if (to == XD_TILING_Y && dwords[1] >> 30 & 1)
        to = XD_TILING_YF;
    if (from == XD_TILING_Y && dwords[1] >> 31)
        from = XD_TILING_YF;
    blit->bytes = bytes[dwords[1] >> 24 & 7];
    if (!blit->bytes)
        return XD_BLIT_MALFORMED;
    blit->raster = SOURCE_COPY;
    blit->write_mask = UINT32_MAX;
    blit->source = XD_SOURCE_COLOR;
    blit->to = xd_blit_surface_of(address_of(dwords + 4), low(dwords[1]), to, blit->bytes);
    blit->from = xd_blit_surface_of(address_of(dwords + 8), low(dwords[7]), from, blit->bytes);
    blit->from_left = low(dwords[6]);
    blit->from_top = high(dwords[6]);
    return cut(blit, rectangle, false) ? XD_BLIT_RUN : XD_BLIT_NOTHING;
}

/* Commands that have all they need, but the clip rectangle. */
static int begin_whole(xd_blit *blit, const uint32_t *dwords, uint32_t count, uint32_t bcs_swctrl)
{
    uint32_t header = dwords[0], control = dwords[1];
    corners to = {low(dwords[2]), high(dwords[2]), low(dwords[3]), high(dwords[3])};
    bool transparent = control & PATTERN_TRANSPARENT;
    begin_legacy(blit, header, control, address_of(dwords + 4), bcs_swctrl);
    switch (opcode_of(header)) {
    case XY_COLOR:
        set_solid(blit, dwords[6]);
        break;
    case XY_PAT:
        set_pattern_in_memory(blit, address_of(dwords + 6));
        break;
    case XY_PAT_IMMEDIATE:
        blit->pattern = XD_PATTERN_8X8;
        if (!set_data(blit, dwords + 6, count - 6))
            return XD_BLIT_MALFORMED;
        break;
    case XY_MONO_PAT:
        set_mono_pattern(blit, dwords[8] | (uint64_t)dwords[9] << 32, dwords[6], dwords[7], transparent);
        break;
    case XY_MONO_PAT_FIXED:
        set_mono_pattern(blit, fixed_patterns[header >> 15 & 15], dwords[6], dwords[7], transparent);
        break;
    case XY_MONO_SRC_COPY:
        set_mono(blit, XD_SOURCE_MONO, control, dwords[8], dwords[9]);
        set_mono_lines(blit, header, &to);
        blit->mono_address = address_of(dwords + 6);
        break;
    case XY_MONO_SRC_COPY_IMMEDIATE:
        set_mono(blit, XD_SOURCE_MONO_IMMEDIATE, control, dwords[6], dwords[7]);
        set_mono_lines(blit, header, &to);
        if (!set_data(blit, dwords + 8, count - 8))
            return XD_BLIT_MALFORMED;
        break;
    default: { /* XY_SRC_COPY */
        bool tiled = header & UINT32_C(1) << 15;
        enum xd_blit_tiling tiling = bcs_swctrl & 1 ? XD_TILING_Y : tiled ? XD_TILING_X : XD_TILING_LINEAR;
        blit->source = XD_SOURCE_COLOR;
        blit->from = xd_blit_surface_of(address_of(dwords + 8), low(dwords[7]), tiling, blit->bytes);
        blit->from_left = low(dwords[6]);
        blit->from_top = high(dwords[6]);
        set_direction(blit, address_of(dwords + 4), address_of(dwords + 8), &to);
    }
    }
    return cut(blit, to, control & CLIPPING) ? XD_BLIT_RUN : XD_BLIT_NOTHING;
}

/* Commands that have a rectangle, and take the rest from the setup. */
static int begin_after_setup(xd_blit *blit, const uint32_t *dwords, uint32_t count, uint32_t bcs_swctrl)
{
    static const uint32_t masks = UINT32_C(3) << 20;
    const xd_blit_setup *setup = &blit->setup;
    uint32_t header = (dwords[0] & ~masks) | (setup->header & masks), opcode = opcode_of(header);
    corners to = {low(dwords[1]), high(dwords[1]), low(dwords[1]) + 1, high(dwords[1]) + 1};
    bool transparent = setup->control & PATTERN_TRANSPARENT;
    if (opcode != XY_PIXEL) {
        to.x2 = low(dwords[2]);
        to.y2 = high(dwords[2]);
    }
    begin_legacy(blit, header, setup->control, setup->base, bcs_swctrl);
    if (opcode == XY_PIXEL) {
        set_solid(blit, setup->background);
    } else if (opcode == XY_TEXT) {
        set_mono(blit, XD_SOURCE_MONO, setup->control, setup->background, setup->foreground);
        set_text(blit, header, &to);
        blit->mono_address = address_of(dwords + 3);
    } else if (opcode == XY_TEXT_IMMEDIATE) {
        set_mono(blit, XD_SOURCE_MONO_IMMEDIATE, setup->control, setup->background, setup->foreground);
        set_text(blit, header, &to);
        if (!set_data(blit, dwords + 3, count - 3))
            return XD_BLIT_MALFORMED;
    } else if (opcode_of(setup->header) != XY_SETUP_MONO_PATTERN) {
        set_pattern_in_memory(blit, setup->pattern);
    } else if (!(setup->control & SOLID_PATTERN)) {
        set_mono_pattern(blit, setup->pattern, setup->background, setup->foreground, transparent);
    } else if (transparent) {
        return XD_BLIT_NOTHING; /* the manual: "mutually exclusive ... no pixels drawn" */
    } else {
        set_solid(blit, setup->background);
    }
    return cut(blit, to, setup->control & CLIPPING) ? XD_BLIT_RUN : XD_BLIT_NOTHING;
}

int xd_blit_begin(xd_blit *blit, const uint32_t *dwords, uint32_t count, uint32_t bcs_swctrl)
{
    uint32_t opcode = opcode_of(dwords[0]), least_count = least_dwords(opcode);
    if (!least_count || count < least_count)
        return XD_BLIT_MALFORMED;
    *blit = (xd_blit){.setup = blit->setup};
    switch (opcode) {
    case XY_SETUP:
    case XY_SETUP_MONO_PATTERN:
        set_up(blit, dwords);
        return XD_BLIT_NOTHING;
    case XY_SETUP_CLIP:
        set_clip(blit, dwords + 1);
        return XD_BLIT_NOTHING;
    case XY_FAST_COPY:
        return begin_fast_copy(blit, dwords);
    case XY_PIXEL:
    case XY_SCANLINES:
    case XY_TEXT:
    case XY_TEXT_IMMEDIATE:
        return begin_after_setup(blit, dwords, count, bcs_swctrl);
    default:
        return begin_whole(blit, dwords, count, bcs_swctrl);
    }
}

void xd_blit_reset(xd_blit *blit)
{
    *blit = (xd_blit){0};
}
