#ifndef XD_COMMANDS_H
#define XD_COMMANDS_H
#include <stdint.h>

/*
 * What the command streamer must know of each command: how long it is, and what it does. The rows are in Python
 * (vgpu/commands/), which makes a set for each engine (vgpu/command_table.py) and keeps it. Any thread may call what is
 * here: a set never changes.
 *
 * The first dword of a command is its header. Its bits 31:29 are the client: 0 MI, 2 blitter, 3 render and media. Bits
 * below them are the opcode, and how many depends on the client; so each client has an index of its own. Whatever has
 * no row of its own has one that passes over it by the client's length rule, or XD_DO_ERROR.
 */

/*
 * What a command does, by the name of its row's `does` in upper case. The blitter's commands that copy or fill have one
 * for all: blit_command.c tells them apart.
 */
enum xd_does {
    XD_DO_ERROR,   /* the engine does not know the command: a CS error; its length has no meaning */
    XD_DO_NOTHING, /* the command has no effect that anybody could see here */
    XD_DO_SKIP,    /* the command has an effect that is not implemented, such as rendering */
    XD_DO_NOOP,
    XD_DO_SET_PREDICATE,
    XD_DO_USER_INTERRUPT,
    XD_DO_ARB_CHECK,
    XD_DO_REPORT_HEAD,
    XD_DO_ARB_ON_OFF,
    XD_DO_BATCH_BUFFER_END,
    XD_DO_PREDICATE,
    XD_DO_MATH,
    XD_DO_SEMAPHORE_SIGNAL,
    XD_DO_SEMAPHORE_WAIT,
    XD_DO_STORE_DATA_IMM,
    XD_DO_STORE_DATA_INDEX,
    XD_DO_LOAD_REGISTER_IMM,
    XD_DO_UPDATE_GTT,
    XD_DO_STORE_REGISTER_MEM,
    XD_DO_FLUSH_DW,
    XD_DO_REPORT_PERF_COUNT,
    XD_DO_LOAD_REGISTER_MEM,
    XD_DO_LOAD_REGISTER_REG,
    XD_DO_COPY_MEM_MEM,
    XD_DO_ATOMIC,
    XD_DO_BATCH_BUFFER_START,
    XD_DO_CONDITIONAL_BATCH_BUFFER_END,
    XD_DO_PIPE_CONTROL,
    XD_DO_BLIT,
    XD_DO_COUNT
};

/* xd_command.flags */
enum {
    XD_COMMAND_PRIVILEGED = 1 /* a batch without privilege executes it as MI_NOOP, by the same length */
};

/*
 * A row. The command has (header & length_mask) + length dwords. One that has fewer than `least` cannot be decoded: its
 * handler would look behind its end.
 */
typedef struct xd_command {
    uint16_t length_mask;
    uint8_t length;
    uint8_t least;
    uint8_t does; /* an xd_does */
    uint8_t flags;
    uint16_t row; /* the place of the row in Python's list, for messages; 0xffff if it has none */
} xd_command;

/* The commands of one engine. commands[0] is XD_DO_ERROR; the indexes have places in `commands`. */
typedef struct xd_command_set {
    const xd_command *commands;
    uint16_t mi[64];       /* by header bits 28:23 */
    uint16_t blitter[128]; /* by header bits 28:22 */
    uint16_t render[8192]; /* by header bits 28:16 */
} xd_command_set;

#ifndef XD_CFFI
/* Returns the row of `set` for the command with this `header`, never NULL. Called by streamer.c. */
static inline const xd_command *xd_command_of(const xd_command_set *set, uint32_t header)
{
    switch (header >> 29) {
    case 0:
        return &set->commands[set->mi[header >> 23]];
    case 2:
        return &set->commands[set->blitter[(header >> 22) & 0x7f]];
    case 3:
        return &set->commands[set->render[(header >> 16) & 0x1fff]];
    default:
        return &set->commands[0];
    }
}

/* Returns how many dwords the `command` with this `header` has, at least 1. Called by streamer.c. */
static inline uint32_t xd_command_dwords(const xd_command *command, uint32_t header)
{
    return (header & command->length_mask) + command->length;
}
#endif

#endif
