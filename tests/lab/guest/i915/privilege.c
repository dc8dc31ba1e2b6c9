/* What a batch of a client must not be able to do: it has no effect, and the batch goes on behind it. */
#include "batch.h"
#include "checks.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#define GPR(n) (0x600u + 8u * (n))
#define MARK 0x600d600du
#define PATTERN 0x5a5a0000u
/* Of the global table: the windows that a guest of this lab is told of (tests/lab/scenarios/i915.py). */
#define GLOBAL_PAGES (48u << 8)
/* In page 1 of a context's image, dword 0x69: the first of the general registers. */
#define IMAGE_GPR (0x69u * 4u)

/* Registers of which no client's batch may write any: masks of an engine, its submission port, and shared ones. */
static const uint32_t of_engine[] = {0x98, 0xb4, 0x230};
static const uint32_t shared[] = {0x4090, 0x940c, 0xa008, 0x101008};

static void forbidden_register(struct queue queue, uint32_t offset, bool readable)
{
    struct object values = object_new(queue.file, PAGE_SIZE);
    struct batch batch = batch_new(queue, PAGE_SIZE);
    batch_use(&batch, &values);
    values.dwords[8] = PATTERN + 1;
    emit_register_store(&batch, offset, values.address);
    emit_register(&batch, offset, PATTERN);
    emit_register_store(&batch, offset, values.address + 4);
    emit(&batch, MI_LOAD_REGISTER_MEM);
    emit(&batch, offset);
    emit_address(&batch, values.address + 32);
    emit_register_store(&batch, offset, values.address + 8);
    emit_register(&batch, queue.engine->base + GPR(0), PATTERN + 2);
    emit(&batch, MI_LOAD_REGISTER_REG);
    emit(&batch, queue.engine->base + GPR(0));
    emit(&batch, offset);
    emit_register_store(&batch, offset, values.address + 12);
    emit_store(&batch, values.address + 16, MARK);
    batch_run(&batch);
    static const char *const by[] = {"MI_LOAD_REGISTER_IMM", "MI_LOAD_REGISTER_MEM", "MI_LOAD_REGISTER_REG"};
    for (unsigned i = 0; readable && i < 3; i++)
        check(values.dwords[0], values.dwords[i + 1], "%s of register %#x has no effect %s", by[i], offset,
              queue.engine->name);
    check(MARK, values.dwords[4], "the batch goes on behind register %#x %s", offset, queue.engine->name);
    object_end(&values);
}

/* Registers that a batch may write: the render engine's list, and what the kernel opens besides. */
static void allowed_registers(int file)
{
    static const struct { uint32_t offset, value, expected; } rows[] = {
        {0x2310, 0x1234, 0x1234}, {0x2400, 0xabcd1234, 0xabcd1234}, {0x2500, 0x77, 0x77},
        {0x2580, 0x00010001, 0x00000001}, {0x7014, 0x80008000, 0x00008000},
    };
    struct queue queue = {file, context_new(file), &engines[RCS0]};
    struct object values = object_new(file, PAGE_SIZE);
    struct batch batch = batch_new(queue, PAGE_SIZE);
    batch_use(&batch, &values);
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        emit_register(&batch, rows[i].offset, rows[i].value);
        emit_register_store(&batch, rows[i].offset, values.address + 4 * i);
    }
    batch_run(&batch);
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint32_t mask = rows[i].value == rows[i].expected ? ~0u : rows[i].value >> 16;
        check(rows[i].expected, values.dwords[i] & mask, "a batch may write register %#x", rows[i].offset);
    }
    context_end(file, queue.context);
    object_end(&values);
}

/* Every page of the global table is aimed at where a context's image has its registers, and where objects are bound. */
static void global_table(struct queue queue)
{
    struct queue victim = {queue.file, context_new(queue.file), queue.engine};
    struct object values = object_new(queue.file, PAGE_SIZE);
    struct batch before = batch_new(victim, PAGE_SIZE);
    emit_register(&before, queue.engine->base + GPR(0), MARK);
    batch_run(&before);

    struct batch batch = batch_new(queue, GLOBAL_PAGES * 16 + PAGE_SIZE);
    batch_use(&batch, &values);
    for (uint32_t page = 0; page < GLOBAL_PAGES; page++) {
        emit(&batch, MI_STORE_DATA_IMM | MI_GLOBAL_GTT);
        emit_address(&batch, (uint64_t)page * PAGE_SIZE + IMAGE_GPR);
        emit(&batch, PATTERN);
    }
    emit_store(&batch, values.address, MARK);
    batch_run(&batch);

    struct batch after = batch_new(victim, PAGE_SIZE);
    batch_use(&after, &values);
    emit_register_store(&after, queue.engine->base + GPR(0), values.address + 4);
    batch_run(&after);
    check(MARK, values.dwords[0], "the batch goes on behind stores to the global table %s", queue.engine->name);
    check(MARK, values.dwords[1], "another context's image is out of reach %s", queue.engine->name);
    context_end(queue.file, victim.context);
    object_end(&values);
}

/* The global bit in each command that has it: memory at the same address of the client's own space keeps its value. */
static void global_bits(struct queue queue)
{
    struct object page = object_new(queue.file, PAGE_SIZE), fence = object_new(queue.file, PAGE_SIZE);
    struct batch batch = batch_new(queue, PAGE_SIZE);
    batch_use(&batch, &page);
    batch_use(&batch, &fence);
    for (unsigned i = 0; i < 64; i++)
        page.dwords[i] = PATTERN + i;
    emit(&batch, MI_STORE_DATA_IMM | MI_GLOBAL_GTT);
    emit_address(&batch, page.address);
    emit(&batch, MARK);
    emit(&batch, MI_STORE_REGISTER_MEM | MI_GLOBAL_GTT);
    emit(&batch, queue.engine->base + GPR(0));
    emit_address(&batch, page.address + 4);
    emit(&batch, MI_COPY_MEM_MEM | 1u << 21);
    emit_address(&batch, page.address + 8);
    emit_address(&batch, page.address + 128);
    if (queue.engine == &engines[RCS0]) {
        emit(&batch, MI_ATOMIC | MI_GLOBAL_GTT | 0x05u << 8);
        emit_address(&batch, page.address + 12);
    }
    emit_store(&batch, fence.address, MARK);
    batch_run(&batch);
    static const char *const by[] = {"MI_STORE_DATA_IMM", "MI_STORE_REGISTER_MEM", "MI_COPY_MEM_MEM", "MI_ATOMIC"};
    for (unsigned i = 0; i < 4; i++)
        check(PATTERN + i, page.dwords[i], "%s with the global bit does nothing %s", by[i], queue.engine->name);
    check(MARK, fence.dwords[0], "the batch goes on behind global bits %s", queue.engine->name);
    object_end(&page);
    object_end(&fence);
}

static struct object read_only_page(int file, uint32_t *memory)
{
    struct drm_i915_gem_userptr user = {
        .user_ptr = (uintptr_t)memory,
        .user_size = PAGE_SIZE,
        .flags = I915_USERPTR_READ_ONLY,
    };
    int result = call(file, DRM_IOCTL_I915_GEM_USERPTR, &user);
    if (result != 0)
        die("GEM_USERPTR", -result);
    return (struct object){file, user.handle, PAGE_SIZE, address_for(PAGE_SIZE), NULL};
}

/* A page of this program's own memory that the GPU may only read. */
static void read_only(struct queue queue)
{
    uint32_t *memory = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("mapping a page", errno);
    for (unsigned i = 0; i < PAGE_SIZE / 4; i++)
        memory[i] = PATTERN + i;
    struct object page = read_only_page(queue.file, memory), target = object_new(queue.file, PAGE_SIZE);
    struct batch batch = batch_new(queue, PAGE_SIZE);
    batch_read(&batch, &page);
    batch_use(&batch, &target);
    emit_store(&batch, page.address, MARK);
    emit_register_store(&batch, queue.engine->base + GPR(0), page.address + 4);
    if (queue.engine == &engines[BCS0]) {
        emit(&batch, 2u << 29 | 0x50u << 22 | 3u << 20 | 5u); /* XY_COLOR_BLT, 32 bits a pixel, of 64 pixels */
        emit(&batch, 3u << 24 | 0xf0u << 16 | 256u);
        emit(&batch, 0);
        emit(&batch, 1u << 16 | 64u);
        emit_address(&batch, page.address);
        emit(&batch, MARK);
    } else {
        emit(&batch, MI_COPY_MEM_MEM);
        emit_address(&batch, page.address + 8);
        emit_address(&batch, page.address + 128);
        emit(&batch, MI_COPY_MEM_MEM); /* reading is allowed */
        emit_address(&batch, target.address + 4);
        emit_address(&batch, page.address + 128);
    }
    emit_store(&batch, target.address, MARK);
    batch_run(&batch);
    unsigned wrong = 0;
    for (unsigned i = 0; i < PAGE_SIZE / 4; i++)
        wrong += memory[i] != PATTERN + i;
    check(0, wrong, "changed dwords of a read-only page %s", queue.engine->name);
    check(MARK, target.dwords[0], "the batch goes on behind a read-only page %s", queue.engine->name);
    if (queue.engine != &engines[BCS0])
        check(PATTERN + 32, target.dwords[1], "a read-only page can be read %s", queue.engine->name);
    object_end(&page);
    object_end(&target);
    munmap(memory, PAGE_SIZE);
}

/* Where nothing is mapped, stores vanish. */
static void unmapped(struct queue queue)
{
    struct object target = object_new(queue.file, PAGE_SIZE);
    uint64_t nowhere = 0x123456789000;
    struct batch batch = batch_new(queue, PAGE_SIZE);
    batch_use(&batch, &target);
    target.dwords[1] = target.dwords[2] = PATTERN;
    emit(&batch, MI_COPY_MEM_MEM);
    emit_address(&batch, target.address + 4);
    emit_address(&batch, nowhere);
    emit_store(&batch, nowhere, MARK);
    emit(&batch, MI_COPY_MEM_MEM);
    emit_address(&batch, target.address + 8);
    emit_address(&batch, nowhere);
    emit_store(&batch, target.address, MARK);
    batch_run(&batch);
    check(MARK, target.dwords[0], "the batch goes on where nothing is mapped %s", queue.engine->name);
    check(target.dwords[1], target.dwords[2], "a store where nothing is mapped vanishes %s", queue.engine->name);
    object_end(&target);
}

void check_privilege(unsigned size)
{
    (void)size;
    int file = gpu_open();
    allowed_registers(file);
    for (unsigned i = 0; i < ENGINES; i++) {
        struct queue queue = {file, 0, &engines[i]};
        read_only(queue);
        if (i == BCS0) /* there the kernel's parser refuses the rest */
            continue;
        for (unsigned k = 0; k < sizeof of_engine / sizeof of_engine[0]; k++)
            forbidden_register(queue, engines[i].base + of_engine[k], of_engine[k] != 0x230);
        global_bits(queue);
        unmapped(queue);
        global_table(queue);
    }
    for (unsigned k = 0; k < sizeof shared / sizeof shared[0]; k++)
        forbidden_register((struct queue){file, 0, &engines[RCS0]}, shared[k], shared[k] != 0x101008);
}
