/* Batches: commands of the Skylake manuals (volume 2a and 6), and what becomes of them. */
#ifndef BATCH_H
#define BATCH_H

#include "gpu.h"

/* Command headers, without lengths that depend on the rest. */
#define MI(opcode, length) ((uint32_t)(opcode) << 23 | (uint32_t)(length))
#define MI_NOOP 0u
#define MI_ARB_CHECK MI(0x05, 0)
#define MI_BATCH_BUFFER_END MI(0x0a, 0)
#define MI_MATH(count) MI(0x1a, (count) - 1)
#define MI_SEMAPHORE_WAIT MI(0x1c, 2)
#define MI_STORE_DATA_IMM MI(0x20, 2)
#define MI_STORE_DATA_IMM_QWORD (MI(0x20, 3) | 1u << 21)
#define MI_LOAD_REGISTER_IMM(count) MI(0x22, 2 * (count) - 1)
#define MI_STORE_REGISTER_MEM MI(0x24, 2)
#define MI_FLUSH_DW MI(0x26, 2)
#define MI_LOAD_REGISTER_MEM MI(0x29, 2)
#define MI_LOAD_REGISTER_REG MI(0x2a, 1)
#define MI_COPY_MEM_MEM MI(0x2e, 3)
#define MI_ATOMIC MI(0x2f, 1)
#define MI_BATCH_BUFFER_START (MI(0x31, 1) | 1u << 8) /* in the context's own address space */
#define MI_CONDITIONAL_BATCH_BUFFER_END (MI(0x36, 2) | 1u << 21)
#define MI_GLOBAL_GTT (1u << 22) /* in the data commands: the address is one of the global table */

#define BATCH_OBJECTS 16u

/* A batch while it is written, and what it touches. */
struct batch {
    struct queue queue;
    struct object object;
    uint32_t count; /* of dwords so far */
    const struct object *used[BATCH_OBJECTS];
    bool read_only[BATCH_OBJECTS];
    unsigned uses;
    uint64_t flags; /* more I915_EXEC_* */
    int fence;      /* to wait for, with I915_EXEC_FENCE_IN; what I915_EXEC_FENCE_OUT gave */
};

struct batch batch_new(struct queue queue, uint64_t size);
void batch_use(struct batch *batch, const struct object *object);
/* The batch does not say that it writes to it, as the kernel demands of what is read-only. */
void batch_read(struct batch *batch, const struct object *object);
void emit(struct batch *batch, uint32_t dword);
void emit_address(struct batch *batch, uint64_t address);
/* The address of the next dword, for jumps. */
uint64_t batch_here(const struct batch *batch);

void emit_store(struct batch *batch, uint64_t address, uint32_t value);
void emit_register(struct batch *batch, uint32_t offset, uint32_t value);
void emit_register_store(struct batch *batch, uint32_t offset, uint64_t address);

/* End it and give it to the kernel: 0, or a negative errno. The batch and its objects must stay until it has ended. */
int batch_submit(struct batch *batch);
/* Submit it, wait for it, give it up. Dies if the kernel refuses it or it does not end. */
void batch_run(struct batch *batch);
/* Wait for its end, give it up: 0, or -ETIME. */
int batch_finish(struct batch *batch);

/* An address of 48 bits as the kernel and the commands want it: bit 47 is repeated above. */
uint64_t canonical(uint64_t address);

#endif
