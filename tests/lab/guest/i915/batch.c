#include "batch.h"

#include <stddef.h>

#define WAIT_SECONDS 60.0

uint64_t canonical(uint64_t address)
{
    return (address ^ (1ull << 47)) - (1ull << 47);
}

struct batch batch_new(struct queue queue, uint64_t size)
{
    return (struct batch){.queue = queue, .object = object_new(queue.file, size)};
}

static void use(struct batch *batch, const struct object *object, bool read_only)
{
    for (unsigned i = 0; i < batch->uses; i++)
        if (batch->used[i] == object)
            return;
    if (batch->uses == BATCH_OBJECTS)
        die("too many objects for a batch", 0);
    batch->read_only[batch->uses] = read_only;
    batch->used[batch->uses++] = object;
}

void batch_use(struct batch *batch, const struct object *object)
{
    use(batch, object, false);
}

void batch_read(struct batch *batch, const struct object *object)
{
    use(batch, object, true);
}

void emit(struct batch *batch, uint32_t dword)
{
    if (batch->count >= batch->object.size / sizeof dword)
        die("a batch is too small", 0);
    batch->object.dwords[batch->count++] = dword;
}

void emit_address(struct batch *batch, uint64_t address)
{
    emit(batch, (uint32_t)address);
    emit(batch, (uint32_t)(canonical(address) >> 32));
}

uint64_t batch_here(const struct batch *batch)
{
    return batch->object.address + batch->count * sizeof(uint32_t);
}

void emit_store(struct batch *batch, uint64_t address, uint32_t value)
{
    emit(batch, MI_STORE_DATA_IMM);
    emit_address(batch, address);
    emit(batch, value);
}

void emit_register(struct batch *batch, uint32_t offset, uint32_t value)
{
    emit(batch, MI_LOAD_REGISTER_IMM(1));
    emit(batch, offset);
    emit(batch, value);
}

void emit_register_store(struct batch *batch, uint32_t offset, uint64_t address)
{
    emit(batch, MI_STORE_REGISTER_MEM);
    emit(batch, offset);
    emit_address(batch, address);
}

int batch_submit(struct batch *batch)
{
    struct drm_i915_gem_exec_object2 list[BATCH_OBJECTS + 1] = {0};
    emit(batch, MI_BATCH_BUFFER_END);
    batch->used[batch->uses] = &batch->object;
    for (unsigned i = 0; i <= batch->uses; i++) {
        const struct object *object = i < batch->uses ? batch->used[i] : &batch->object;
        list[i].handle = object->handle;
        list[i].offset = canonical(object->address);
        list[i].flags = EXEC_OBJECT_PINNED | EXEC_OBJECT_SUPPORTS_48B_ADDRESS;
        if (i < batch->uses && !batch->read_only[i])
            list[i].flags |= EXEC_OBJECT_WRITE;
    }
    struct drm_i915_gem_execbuffer2 execute = {
        .buffers_ptr = (uintptr_t)list,
        .buffer_count = batch->uses + 1,
        .flags = batch->queue.engine->flag | I915_EXEC_NO_RELOC | batch->flags,
        .rsvd1 = batch->queue.context,
        .rsvd2 = (uint32_t)batch->fence,
    };
    int result = call(batch->queue.file, DRM_IOCTL_I915_GEM_EXECBUFFER2_WR, &execute);
    if (batch->flags & I915_EXEC_FENCE_OUT)
        batch->fence = (int)(execute.rsvd2 >> 32);
    return result;
}

int batch_finish(struct batch *batch)
{
    int result = object_wait(&batch->object, WAIT_SECONDS);
    object_end(&batch->object);
    return result;
}

void batch_run(struct batch *batch)
{
    int result = batch_submit(batch);
    if (result != 0)
        die("EXECBUFFER2", -result);
    result = batch_finish(batch);
    if (result != 0)
        die("a batch to end", -result);
}
