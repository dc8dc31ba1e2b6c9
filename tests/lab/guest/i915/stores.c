/* Stores by every engine, at low and high addresses, with addresses of ours and of the kernel's choice. */
#include "batch.h"
#include "checks.h"

#include <stdlib.h>

static const uint64_t addresses[] = {0x200000, 0x7fffe0000000, 0xffffc0000000};

static void store_at(struct queue queue, uint64_t address)
{
    struct object target = object_at(queue.file, PAGE_SIZE, address);
    struct batch batch = batch_new(queue, PAGE_SIZE);
    uint32_t value = 0xc0ffee00u + queue.engine->base;
    batch_use(&batch, &target);
    emit_store(&batch, address + 16, value);
    emit(&batch, MI_STORE_DATA_IMM_QWORD);
    emit_address(&batch, address + PAGE_SIZE - 8);
    emit(&batch, ~value);
    emit(&batch, value);
    batch_run(&batch);
    uint32_t *page = target.dwords;
    check(value, page[4], "store %s %#llx", queue.engine->name, (unsigned long long)address);
    check((uint64_t)value << 32 | ~value, (uint64_t)page[1023] << 32 | page[1022], "store of 8 bytes %s %#llx",
          queue.engine->name, (unsigned long long)address);
    unsigned others = 0;
    for (unsigned i = 0; i < PAGE_SIZE / 4; i++)
        others += i != 4 && i < 1022 && page[i] != 0;
    check(0, others, "other dwords of the page %s %#llx", queue.engine->name, (unsigned long long)address);
    object_end(&target);
}

/* The kernel chooses where both objects are, and patches the batch. */
static void relocation(struct queue queue)
{
    struct object target = object_at(queue.file, PAGE_SIZE, 0), commands = object_at(queue.file, PAGE_SIZE, 0);
    uint32_t *batch = commands.dwords;
    batch[0] = MI_STORE_DATA_IMM;
    batch[3] = 0xabcd0000u + queue.engine->base;
    batch[4] = MI_BATCH_BUFFER_END;
    struct drm_i915_gem_relocation_entry entry = {
        .target_handle = target.handle,
        .delta = 8,
        .offset = 4,
        .presumed_offset = ~0ull,
        .read_domains = I915_GEM_DOMAIN_RENDER,
        .write_domain = I915_GEM_DOMAIN_RENDER,
    };
    struct drm_i915_gem_exec_object2 list[] = {
        {.handle = target.handle},
        {.handle = commands.handle, .relocation_count = 1, .relocs_ptr = (uintptr_t)&entry},
    };
    struct drm_i915_gem_execbuffer2 execute = {
        .buffers_ptr = (uintptr_t)list,
        .buffer_count = 2,
        .flags = queue.engine->flag,
        .rsvd1 = queue.context,
    };
    int result = call(queue.file, DRM_IOCTL_I915_GEM_EXECBUFFER2, &execute);
    if (result != 0)
        die("EXECBUFFER2 with a relocation", -result);
    check(0, (uint64_t)-object_wait(&target, 60), "relocated batch ends %s", queue.engine->name);
    check(0xabcd0000u + queue.engine->base, target.dwords[2], "relocation %s", queue.engine->name);
    object_end(&target);
    object_end(&commands);
}

void check_stores(unsigned size)
{
    (void)size;
    int file = gpu_open();
    for (unsigned i = 0; i < ENGINES; i++) {
        struct queue queue = {file, 0, &engines[i]};
        for (unsigned k = 0; k < sizeof addresses / sizeof addresses[0]; k++)
            store_at(queue, addresses[k]);
        relocation(queue);
    }
}
