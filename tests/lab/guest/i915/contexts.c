/* Contexts: address spaces of their own, register files of their own. */
#include <stdio.h>

#include "batch.h"
#include "checks.h"

#define SHARED_ADDRESS 0x400000u
#define GPR(n) (0x600u + 8u * (n))
#define GPRS 16u
#define TELL 10u

/* Two contexts have other pages at the same address. */
static void same_address(int file, const struct engine *engine)
{
    uint32_t spaces[2];
    struct object pages[2];
    struct queue queues[2];
    for (unsigned i = 0; i < 2; i++) {
        spaces[i] = space_new(file);
        queues[i] = (struct queue){file, context_in(file, spaces[i]), engine};
        pages[i] = object_at(file, PAGE_SIZE, SHARED_ADDRESS);
        for (unsigned k = 0; k < PAGE_SIZE / 4; k++)
            pages[i].dwords[k] = 0x1000u * (i + 1) + k;
    }
    for (unsigned i = 0; i < 2; i++) {
        struct batch batch = batch_new(queues[i], PAGE_SIZE);
        batch_use(&batch, &pages[i]);
        emit_store(&batch, SHARED_ADDRESS, 0xaa00u + i);
        if (engine != &engines[BCS0]) { /* where the kernel's parser knows few commands */
            emit(&batch, MI_COPY_MEM_MEM);
            emit_address(&batch, SHARED_ADDRESS + 4);
            emit_address(&batch, SHARED_ADDRESS + 8);
        }
        batch_run(&batch);
    }
    for (unsigned i = 0; i < 2; i++) {
        check(0xaa00u + i, pages[i].dwords[0], "store in context %u at a shared address %s", i, engine->name);
        if (engine != &engines[BCS0])
            check(0x1000u * (i + 1) + 2, pages[i].dwords[1], "load in context %u at a shared address %s", i, engine->name);
        check(0x1000u * (i + 1) + 3, pages[i].dwords[3], "the rest in context %u %s", i, engine->name);
    }
    for (unsigned i = 0; i < 2; i++) {
        context_end(file, queues[i].context);
        space_end(file, spaces[i]);
        object_end(&pages[i]);
    }
}

static void write_registers(struct queue queue, uint32_t seed)
{
    struct batch batch = batch_new(queue, PAGE_SIZE);
    for (unsigned i = 0; i < GPRS; i++) {
        emit_register(&batch, queue.engine->base + GPR(i), seed + i);
        emit_register(&batch, queue.engine->base + GPR(i) + 4, ~seed - i);
    }
    batch_run(&batch);
}

static void compare_registers(struct queue queue, uint32_t seed, bool fresh, const char *when)
{
    struct object values = object_new(queue.file, PAGE_SIZE);
    struct batch batch = batch_new(queue, PAGE_SIZE);
    batch_use(&batch, &values);
    for (unsigned i = 0; i < 2 * GPRS; i++)
        emit_register_store(&batch, queue.engine->base + GPR(0) + 4 * i, values.address + 4 * i);
    batch_run(&batch);
    unsigned wrong = 0;
    for (unsigned i = 0; i < GPRS; i++)
        wrong += fresh ? values.dwords[2 * i] == seed + i || values.dwords[2 * i + 1] == ~seed - i
                       : values.dwords[2 * i] != seed + i || values.dwords[2 * i + 1] != ~seed - i;
    check(0, wrong, "registers of %s %s", when, queue.engine->name);
    object_end(&values);
}

/* The registers belong to the context, and come back after another one has run. */
static void own_registers(int file, const struct engine *engine)
{
    struct queue first = {file, context_new(file), engine}, second = {file, context_new(file), engine};
    write_registers(first, 0x11110000);
    compare_registers(second, 0x11110000, true, "a new context");
    write_registers(second, 0x22220000);
    compare_registers(first, 0x11110000, false, "the first context");
    compare_registers(second, 0x22220000, false, "the second context");
    context_end(file, first.context);
    context_end(file, second.context);
}

void check_contexts(unsigned size)
{
    (void)size;
    int file = gpu_open();
    for (unsigned i = 0; i < ENGINES; i++) {
        same_address(file, &engines[i]);
        own_registers(file, &engines[i]);
    }
}

/* Address spaces that come and go, with tables of their own each time. */
void check_spaces(unsigned size)
{
    int file = gpu_open();
    unsigned wrong = 0;
    for (unsigned i = 0; i < size; i++) {
        if (i % TELL == 0) {
            printf("at space %u\n", i);
            fflush(stdout);
        }
        uint32_t space = space_new(file);
        struct queue queue = {file, context_in(file, space), &engines[i % ENGINES]};
        struct object near = object_at(file, PAGE_SIZE, 0x100000u + 0x201000ull * i);
        struct object far = object_at(file, 4 * PAGE_SIZE, 0x100000000000ull + 0x8000201000ull * (i % 200));
        struct batch batch = batch_new(queue, PAGE_SIZE);
        batch_use(&batch, &near);
        batch_use(&batch, &far);
        emit_store(&batch, near.address + 4 * i, i + 1);
        for (unsigned k = 0; k < 4; k++)
            emit_store(&batch, far.address + k * PAGE_SIZE, ~i - k);
        batch_run(&batch);
        wrong += near.dwords[i] != i + 1;
        for (unsigned k = 0; k < 4; k++)
            wrong += far.dwords[k * PAGE_SIZE / 4] != ~i - k;
        context_end(file, queue.context);
        space_end(file, space);
        object_end(&near);
        object_end(&far);
    }
    check(0, wrong, "stores in %u address spaces that came and went", size);
}
