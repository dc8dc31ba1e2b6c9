#ifndef XD_GPU_H
#define XD_GPU_H
#include <stdint.h>
#include "blit.h"
#include "commands.h"
#include "gpu_memory.h"
#include "journal.h"

/*
 * The GPU of one guest: its registers, its engines, and how it reaches memory. Engines by number: 0 rcs0, 1 bcs0, 2 vcs0,
 * 3 vecs0.
 *
 * What must outlive the process is in the state buffer: the registers (`registers`, by their offsets in BAR0) and a page
 * for each engine (`pages`). The rest is made anew by a successor. The thread that serves the guest calls every function
 * here. gpu: of the guest. engine: its number.
 */
enum { XD_ENGINES = 4, XD_CS_LEVELS = 3, XD_REGISTERS_SIZE = 2 << 20, XD_MOST_EVENTS = 4 };

/* An element of an execution list: a context descriptor. low: bit 0 valid, bits 31:12 the context's address. */
typedef struct xd_element {
    uint32_t low, high;
} xd_element;

/* What an engine does next with its current context. */
enum {
    XD_PHASE_IDLE = 0,
    XD_PHASE_RESTORE = 1,  /* load the ring's registers from the context's image */
    XD_PHASE_INDIRECT = 2, /* execute the indirect context batch */
    XD_PHASE_REST = 3,     /* load the other registers */
    XD_PHASE_RUN = 4,      /* execute the ring */
    XD_PHASE_SAVE = 5      /* the ring is empty: save the registers, and go on with the next element */
};

/* Where an engine executes: the ring (level 0), a batch, or a batch of second level. */
typedef struct xd_cs_level {
    uint64_t ip;      /* of the next command; in level 0, its offset in the ring */
    uint64_t end;     /* the batch ends here even without MI_BATCH_BUFFER_END; 0: it does not */
    uint32_t ppgtt;   /* 1: the commands are in the PPGTT, and without privilege */
    uint32_t padding;
} xd_cs_level;

/* An engine. events: what the driver is to be told, in this order, before anything else happens. */
typedef struct xd_engine_state {
    uint32_t phase;
    uint32_t level;
    xd_cs_level levels[XD_CS_LEVELS];
    uint32_t cursor;          /* how far the current command came, of one that does several stores */
    uint32_t waiting;         /* the driver was told that the current command waits for a semaphore */
    uint32_t predicate;       /* of MI_SET_PREDICATE */
    uint32_t arbitration;
    uint32_t needs_sync;      /* the shadow of the PPGTT must be synced before the next access */
    uint32_t active_index;
    xd_element active[2];
    xd_element pending[2];
    uint32_t has_pending;
    uint32_t elsp_count;
    uint32_t elsp[4];
    uint32_t csb;             /* the entry of the context status buffer that was written last */
    uint32_t event_count;
    xd_element events[XD_MOST_EVENTS];
    uint64_t loaded_at;       /* ticks when the context was loaded */
    uint64_t progress;        /* counts changes of registers and memory that commands made */
    uint64_t jumped_at;       /* `progress` at the last jump backwards */
    uint32_t needs_tail;      /* the ring has a new tail, in the image of the context */
    uint32_t blitting;        /* the current command is a blit, and `blit` says how far it came */
    xd_blit blit;
} xd_engine_state;

/* What is of all engines, in the page of engine 0: bits of the interrupt registers, by bank. */
typedef struct xd_interrupt_state {
    uint32_t queued[4]; /* events that came again after the guest had read their bits, and before it cleared them */
    uint32_t known[4];  /* what the guest has read of IIR since it was set */
} xd_interrupt_state;

/*
 * The page of an engine. current: which half holds, in bit 0. What must happen once, whenever the process dies, is written
 * to the other half, and then one store to `current` has it hold.
 */
typedef struct xd_engine_page {
    uint64_t current;
    xd_interrupt_state interrupts;
    uint64_t room[3];
    xd_engine_state halves[2];
} xd_engine_page;

/* A register that is not plain: what a write changes. As in vgpu/registers/register.py; by dword. */
typedef struct xd_register_rule {
    uint32_t offset;
    uint32_t writable;
    uint32_t write_one_to_clear;
    uint32_t reset;
    uint32_t masked;
} xd_register_rule;

/* What is particular to an engine. allowed: the offsets of the registers that a batch without privilege may load, sorted.
 * extra: those that its contexts have besides what a driver writes into an image. */
typedef struct xd_engine_kind {
    uint32_t base;
    uint32_t bank, shift; /* of its interrupts */
    uint32_t id;          /* in fault registers */
    uint32_t allowed_count, extra_count;
    const uint32_t *allowed;
    const uint32_t *extra;
    const xd_command_set *commands;
} xd_engine_kind;

enum { XD_WINDOW = 2048 };
/* No frame has this number. */
#define XD_NO_FRAME UINT64_MAX

/* What this process knows of an engine. window: a copy of commands from `ip` on, in `level`. */
typedef struct xd_engine {
    xd_gpu_space space;
    uint64_t window_ip;
    uint64_t window_frame;  /* the frame of the first of them, or XD_NO_FRAME */
    uint32_t window_level;
    uint32_t window_count;  /* dwords; 0: none */
    uint32_t without_root;  /* 1: the space was synced and has no root */
    uint32_t reason;        /* what the last run came to */
    uint32_t syncs;         /* of the space, since a command was done */
    uint32_t follows;       /* 1: page tables must follow the store in `table` before it goes on */
    xd_gm_table table;
    uint32_t window[XD_WINDOW];
} xd_engine;

/* What whoever serves must do after a call: xd_gpu.attention. */
enum {
    XD_ATTENTION_INTERRUPT = 1, /* send the interrupt */
    XD_ATTENTION_LINE_DOWN = 2, /* there is no interrupt any more; urgent only if `level_triggered` */
    XD_ATTENTION_RUN = 4        /* an engine has work */
};

/* What the GPU has done. */
typedef struct xd_gpu_counts {
    uint64_t lists;     /* submitted */
    uint64_t ignored;   /* lists that made no sense, or replaced one */
    uint64_t contexts;  /* loaded */
    uint64_t commands;
    uint64_t events;    /* in context status buffers */
    uint64_t interrupts;
    uint64_t faults;
    uint64_t denied;    /* writes of registers without privilege */
    uint64_t errors;    /* commands that nobody can decode */
} xd_gpu_counts;

typedef struct xd_gpu {
    xd_gpu_memory memory;
    char *registers;
    uint64_t *ggtt;
    xd_engine_page *pages;
    const xd_register_rule *rules; /* sorted by offset */
    uint64_t rule_count;
    const uint8_t *pci_command;    /* bit 2 set: the GPU may touch memory; NULL: it always may */
    uint8_t *bounce;               /* a page for each engine */
    uint64_t clock_ns;             /* the time, for tests; 0: that of the host */
    uint32_t attention;
    uint32_t level_triggered;      /* 1: interrupts are lines that stay up */
    uint32_t run_inside;           /* budget of what is executed inside of the write that submits it */
    uint32_t halted;               /* 1: no engine executes anything */
    uint32_t padding;
    uint64_t stores_seen;          /* memory.stores when those who wait for memory looked last */
    xd_journal_record *record;     /* of the request that is being served, until it has changed the state; or NULL */
    uint64_t *words;               /* those of the state, for the journal */
    uint64_t element;              /* of the request */
    xd_gpu_counts counts;
    xd_engine_kind kinds[XD_ENGINES];
    xd_engine engines[XD_ENGINES];
} xd_gpu;

/* Returns the size of an xd_engine_state, for the check that two fit in a page. Called by tests. */
uint32_t xd_engine_state_size(void);

#ifndef XD_CFFI
/* Offsets of an engine's registers, from its base. */
enum {
    RING_TAIL = 0x30,
    RING_HEAD = 0x34,
    RING_START = 0x38,
    RING_CTL = 0x3c,
    RING_ACTHD_UDW = 0x5c,
    RING_IPEHR = 0x68,
    RING_ACTHD = 0x74,
    RING_HWS_PGA = 0x80,
    RING_NOPID = 0x94,
    RING_MI_MODE = 0x9c,
    RING_IMR = 0xa8,
    RING_EIR = 0xb0,
    RING_EMR = 0xb4,
    RING_BBSTATE = 0x110,
    RING_BBADDR = 0x140,
    RING_BBADDR_UDW = 0x168,
    RING_BB_PER_CTX = 0x1c0,
    RING_INDIRECT_CTX = 0x1c4,
    RING_INDIRECT_CTX_OFFSET = 0x1c8,
    RING_ELSP = 0x230,
    RING_EXECLIST_STATUS = 0x234,
    RING_CONTEXT_CONTROL = 0x244,
    RING_PDP0 = 0x270,
    RING_MODE = 0x29c,
    RING_TIMESTAMP = 0x358,
    RING_TIMESTAMP_UDW = 0x35c,
    RING_CSB = 0x370,
    RING_CSB_PTR = 0x3a0,
    RING_CTX_TIMESTAMP = 0x3a8,
    RING_NONPRIV = 0x4d0,
    RING_NONPRIV_COUNT = 12,
    RING_GPR = 0x600,
    RING_GPR_COUNT = 16
};
enum {
    PREDICATE_SRC0 = 0x2400,
    PREDICATE_SRC1 = 0x2408,
    PREDICATE_DATA = 0x2410,
    PREDICATE_RESULT = 0x2418,
    PREDICATE_RESULT_2 = 0x23bc,
    RING_FAULT = 0x4094,
    FAULT_TLB_DATA0 = 0x4b10,
    FAULT_TLB_DATA1 = 0x4b14,
    RTCR = 0x4260,
    M1TCR = 0x4264,
    M2TCR = 0x4268,
    BTCR = 0x426c,
    VTCR = 0x4270,
    MASTER_IRQ = 0x44200,
    GT_ISR = 0x44300
};
enum {
    STOP_RING = 1 << 8,
    MODE_IDLE = 1 << 9,
    EXECLIST_ENABLE = 1 << 15,
    RESTORE_INHIBIT = 1,
    ELEMENT_VALID = 1
};

/* Returns what is stored of the register at `offset`. Called by C files of this folder. */
static inline uint32_t xd_register(const xd_gpu *gpu, uint32_t offset)
{
    return __atomic_load_n((const uint32_t *)(const void *)(gpu->registers + offset), __ATOMIC_RELAXED);
}

/* Stores `value` to the register at `offset`, whatever its rule says. Called by C files of this folder. */
static inline void xd_register_store(xd_gpu *gpu, uint32_t offset, uint32_t value)
{
    __atomic_store_n((uint32_t *)(void *)(gpu->registers + offset), value, __ATOMIC_RELAXED);
}

/* Returns what is stored of the 8 bytes at `offset`. Called by C files of this folder. */
static inline uint64_t xd_register64(const xd_gpu *gpu, uint32_t offset)
{
    return (uint64_t)xd_register(gpu, offset + 4) << 32 | xd_register(gpu, offset);
}

/* Stores `value` to the 8 bytes at `offset`. Called by C files of this folder. */
static inline void xd_register_store64(xd_gpu *gpu, uint32_t offset, uint64_t value)
{
    xd_register_store(gpu, offset, (uint32_t)value);
    xd_register_store(gpu, offset + 4, (uint32_t)(value >> 32));
}

/* Returns the state of an engine. Called by C files of this folder. */
static inline xd_engine_state *xd_state_of(const xd_gpu *gpu, uint32_t engine)
{
    xd_engine_page *page = &gpu->pages[engine];
    return &page->halves[page->current & 1];
}

/* A word of the state, and what it becomes. */
typedef struct xd_change {
    uint64_t *at;
    uint64_t value;
} xd_change;

/*
 * Changes `count` words of the state, at most XD_JOURNAL_WORDS. If a request of the guest is being served, the journal
 * makes sure that the first such call changes all of them once, and that a successor does the request no more. Called
 * by C files of this folder.
 */
void xd_gpu_commit(xd_gpu *gpu, const xd_change *changes, uint32_t count);

/* Returns the other half of an engine's state, as a copy of the current one. Called by execlists.c. */
xd_engine_state *xd_state_copy(xd_gpu *gpu, uint32_t engine);

/* Has the other half hold, by xd_gpu_commit. Called by execlists.c. */
void xd_state_flip(xd_gpu *gpu, uint32_t engine);

/* Returns the time in ticks of the timestamp, 12 MHz. Called by C files of this folder. */
uint64_t xd_ticks(const xd_gpu *gpu);

/*
 * Returns what a command reads of the register at `offset`; `engine` executes it. Called by C files of this folder.
 */
uint32_t xd_cs_register(const xd_gpu *gpu, uint32_t engine, uint32_t offset);

/*
 * A command of `engine` stores `value` to the register at `offset`, by the register's rule; bits outside of `lanes` stay.
 * Returns whether the register has changed. Called by C files of this folder.
 */
int xd_cs_register_store(xd_gpu *gpu, uint32_t engine, uint32_t offset, uint32_t value, uint32_t lanes);

/* Returns whether a batch of `engine` without privilege may load the register at `offset`. Called by mi_register.c. */
int xd_cs_may_store(const xd_gpu *gpu, uint32_t engine, uint32_t offset);

/* Returns the rule of the register at `offset`, or NULL if it is plain. Called by C files of this folder. */
const xd_register_rule *xd_rule_of(const xd_gpu *gpu, uint32_t offset);
#endif

#endif
