#ifndef XD_BLIT_COMMAND_H
#define XD_BLIT_COMMAND_H
#include <stdint.h>
#include "blit_surface.h"

/*
 * Commands of the blitter, decoded.
 *
 * A blit makes each byte of a rectangle from three operands: pattern, source, and what is there. An operand that the
 * command does not have reads as zeros. The fields are those of the manuals: Skylake, volume 11, for what a blit is;
 * Ivy Bridge, volume 1 part 4, for the dwords, where each address takes two dwords from generation 8 on. The commands
 * are those with X and Y that Skylake has, without the chroma keyed and the XY_FULL ones.
 *
 * The record is what must outlive a kill: it has no pointers, and lies in the state. The thread that serves the guest
 * calls every function here.
 */
enum xd_blit_source { XD_SOURCE_NONE = 0, XD_SOURCE_COLOR = 1, XD_SOURCE_MONO = 2, XD_SOURCE_MONO_IMMEDIATE = 3 };
enum xd_blit_pattern { XD_PATTERN_NONE = 0, XD_PATTERN_SOLID = 1, XD_PATTERN_8X8 = 2, XD_PATTERN_IN_MEMORY = 3 };
/* xd_blit.flags */
enum {
    XD_BLIT_RIGHT_TO_LEFT = 1,
    XD_BLIT_BOTTOM_TO_TOP = 2,
    XD_BLIT_SOURCE_TRANSPARENT = 4,  /* a bit 0 of the monochrome source: the pixel is not written */
    XD_BLIT_PATTERN_TRANSPARENT = 8, /* the same of pattern_bits */
    XD_BLIT_SAME_BASE = 16           /* of source and destination, which may overlap */
};
enum { XD_BLIT_DATA = 256, XD_BLIT_BYTES = 512 };

/*
 * What XY_SETUP_BLT, XY_SETUP_MONO_PATTERN_SL_BLT and XY_SETUP_CLIP_BLT leave for later commands, as dwords of theirs.
 */
typedef struct xd_blit_setup {
    uint32_t header;
    uint32_t control;
    uint64_t base;
    uint32_t background;
    uint32_t foreground;
    uint64_t pattern; /* its address, or its 64 bits */
    uint32_t clip[2];
} xd_blit_setup;

/*
 * cursor: how far it came; see blit.c. left, top, width, height: what is drawn of the destination, in pixels; without
 * negative coordinates. from_left, from_top: the pixel of the source that belongs to (left, top); of a monochrome
 * source, from its first bit. first_bit, row_bits: of a monochrome source. write_mask: bits of a 4-byte pixel that are
 * written. pattern_left, pattern_top: the pixel of the pattern at (0, 0) of the destination. data: colours of the 8x8
 * pattern, or the immediate data of a monochrome source.
 */
typedef struct xd_blit {
    uint64_t cursor;
    xd_blit_setup setup;
    xd_blit_surface to;
    xd_blit_surface from;
    int32_t left, top, width, height;
    int32_t from_left, from_top;
    uint64_t mono_address;
    uint64_t pattern_address;
    uint64_t pattern_bits; /* byte 0 is the top row; its bit 7 is the left pixel */
    int32_t first_bit, row_bits;
    uint32_t background, foreground; /* of a monochrome source */
    uint32_t solid;
    uint32_t write_mask;
    uint8_t bytes; /* of a pixel */
    uint8_t raster;
    uint8_t source;  /* an xd_blit_source */
    uint8_t pattern; /* an xd_blit_pattern */
    uint8_t flags;
    uint8_t pattern_left, pattern_top;
    uint8_t padding;
    uint8_t data[XD_BLIT_DATA];
} xd_blit;

/* What xd_blit_begin found. */
enum {
    XD_BLIT_RUN = 0,      /* xd_blit_run does it */
    XD_BLIT_NOTHING = 1,  /* no pixel is drawn: a setup command, or an empty rectangle */
    XD_BLIT_MALFORMED = 2 /* a CS error: no blit, too short, too much immediate data, or a reserved depth */
};

/*
 * Decodes the command in `count` dwords, all that it has, into `blit`. bcs_swctrl: that register, whose bits 0 and 1
 * make source and destination Y-tiled. A command that is begun again after a kill is begun afresh. Returns one of the
 * above. Called by cs_blit.c.
 */
int xd_blit_begin(xd_blit *blit, const uint32_t *dwords, uint32_t count, uint32_t bcs_swctrl);
/* Forgets the setup: what a context finds that has not set it up. Called by execlists.c. */
void xd_blit_reset(xd_blit *blit);

#endif
