/* Batches that no engine can get through: the guilty context is told, others lose nothing. */
#include <errno.h>
#include <linux/sync_file.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "checks.h"
#include "spinner.h"

#define UNDECODABLE 0xdeadbeefu
#define MARK 0x600d600du
#define END_MS 120000

static int fence_status(int fence)
{
    struct sync_file_info info = {0};
    if (ioctl(fence, SYNC_IOC_FILE_INFO, &info) != 0)
        die("SYNC_IOC_FILE_INFO", errno);
    return info.status;
}

static struct drm_i915_reset_stats stats_of(struct queue queue)
{
    struct drm_i915_reset_stats stats = {.ctx_id = queue.context};
    int result = call(queue.file, DRM_IOCTL_I915_GET_RESET_STATS, &stats);
    if (result != 0)
        die("GET_RESET_STATS", -result);
    return stats;
}

static void store_runs(struct queue queue, const char *when, const char *guilty)
{
    struct object target = object_new(queue.file, PAGE_SIZE);
    struct batch batch = batch_new(queue, PAGE_SIZE);
    batch_use(&batch, &target);
    emit_store(&batch, target.address, MARK);
    batch_run(&batch);
    check(MARK, target.dwords[0], "%s %s %s", queue.engine->name, when, guilty);
    object_end(&target);
}

/* Each is a client of its own: the kernel bans clients that hang too often. */
static void guilty(unsigned engine, bool undecodable)
{
    int file = gpu_open(), other = gpu_open();
    const char *name = engines[engine].name, *how = undecodable ? "CS error" : "hang";
    struct queue queue = {file, context_new(file), &engines[engine]};
    struct queue innocent = {other, context_new(other), &engines[engine]};
    struct drm_i915_gem_context_param once = {.ctx_id = queue.context, .param = I915_CONTEXT_PARAM_RECOVERABLE};
    int result = call(file, DRM_IOCTL_I915_GEM_CONTEXT_SETPARAM, &once);
    if (result != 0)
        die("I915_CONTEXT_PARAM_RECOVERABLE", -result);
    store_runs(innocent, "executes before the", how);

    /* Another engine goes round meanwhile, and must not be reset. */
    struct queue beside = {other, 0, &engines[(engine + 1) % ENGINES]};
    struct spinner spinner = spinner_start(beside, I915_EXEC_FENCE_OUT);
    struct object target = object_new(file, PAGE_SIZE);
    struct batch batch = batch_new(queue, PAGE_SIZE);
    batch_use(&batch, &target);
    emit_store(&batch, target.address, MARK);
    if (undecodable)
        emit(&batch, UNDECODABLE);
    emit_endless(&batch);
    batch.flags = I915_EXEC_FENCE_OUT;
    result = batch_submit(&batch);
    if (result != 0)
        die("EXECBUFFER2 of a batch that hangs", -result);
    struct pollfd look = {.fd = batch.fence, .events = POLLIN};
    if (!undecodable) { /* heartbeats of an engine that goes round would reset that one, too */
        sleep_ms(200);
        spinner_stop(&spinner);
    }
    if (poll(&look, 1, END_MS) != 1)
        die("the end of a batch that hangs", ETIME);
    spinner_stop(&spinner);
    check((uint64_t)-EIO, (uint64_t)(int64_t)fence_status(batch.fence), "error of the guilty batch, %s %s", how, name);
    check(MARK, target.dwords[0], "what the guilty batch did before, %s %s", how, name);
    struct drm_i915_reset_stats stats = stats_of(queue);
    check(1, stats.batch_active, "batches that the guilty context lost while they executed, %s %s", how, name);
    check(0, stats.batch_pending, "batches that the guilty context lost while they waited, %s %s", how, name);
    batch_finish(&batch);

    struct batch again = batch_new(queue, PAGE_SIZE);
    check((uint64_t)-EIO, (uint64_t)(int64_t)batch_submit(&again), "the guilty context is banned, %s %s", how, name);
    object_end(&again.object);

    int fence = spinner.batch.fence;
    spinner_finish(&spinner);
    check(1, (uint64_t)fence_status(fence), "the batch beside ends well, %s %s", how, name);
    close(fence);
    stats = stats_of(innocent);
    check(0, stats.batch_active + stats.batch_pending, "batches that another context lost, %s %s", how, name);
    store_runs(innocent, "executes after the", how);
    object_end(&target);
    close(file);
    close(other);
}

void check_errors(unsigned size)
{
    (void)size;
    static const unsigned on[] = {RCS0, VCS0, VECS0}; /* on bcs0 the kernel refuses what it cannot decode */
    for (unsigned i = 0; i < sizeof on / sizeof on[0]; i++)
        guilty(on[i], true);
    int file = gpu_open();
    struct batch batch = batch_new((struct queue){file, 0, &engines[BCS0]}, PAGE_SIZE);
    emit(&batch, UNDECODABLE);
    check((uint64_t)-EINVAL, (uint64_t)(int64_t)batch_submit(&batch), "the kernel's parser refuses the undecodable");
    object_end(&batch.object);
    close(file);
}

void check_hangs(unsigned size)
{
    (void)size;
    static const unsigned on[] = {RCS0, BCS0, VECS0};
    for (unsigned i = 0; i < sizeof on / sizeof on[0]; i++)
        guilty(on[i], false);
}
