/* Waiting: for the CPU by waits, busy flags and fences, between engines by fences and by semaphores. */
#include "batch.h"
#include "checks.h"
#include "spinner.h"

#include <errno.h>
#include <linux/sync_file.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SPIN_MS 100u
#define MARK 0x600d600du
#define SEMAPHORE_POLL (1u << 15)

static bool signalled(int fence)
{
    struct pollfd look = {.fd = fence, .events = POLLIN};
    return poll(&look, 1, 0) == 1 && (look.revents & POLLIN) != 0;
}

static void wait_signalled(int fence, const char *what)
{
    struct pollfd look = {.fd = fence, .events = POLLIN};
    if (poll(&look, 1, 60000) != 1)
        die(what, ETIME);
}

/* A batch that goes round is busy until it is ended; other engines execute meanwhile. */
static void spin(int file, unsigned engine)
{
    struct queue queue = {file, 0, &engines[engine]}, beside = {file, 0, &engines[(engine + 1) % ENGINES]};
    const char *name = engines[engine].name;
    struct spinner spinner = spinner_start(queue, 0);
    struct object target = object_new(file, PAGE_SIZE);

    struct batch behind = batch_new(queue, PAGE_SIZE); /* the same context: it is queued */
    batch_use(&behind, &target);
    emit_store(&behind, target.address + 4, MARK);
    int result = batch_submit(&behind);
    if (result != 0)
        die("EXECBUFFER2 behind a spinner", -result);

    struct object other = object_new(file, PAGE_SIZE);
    struct batch batch = batch_new(beside, PAGE_SIZE);
    batch_use(&batch, &other);
    emit_store(&batch, other.address, MARK);
    batch_run(&batch);
    check(MARK, other.dwords[0], "%s executes beside a spinner %s", beside.engine->name, name);
    sleep_ms(SPIN_MS);
    check(1, object_busy(&spinner.batch.object), "a spinner is busy %s", name);
    check((uint64_t)-ETIME, (uint64_t)object_wait(&spinner.batch.object, 0.01), "waiting for a spinner times out %s", name);
    check(0, target.dwords[1], "a batch behind a spinner waits %s", name);
    spinner_finish(&spinner);
    batch_finish(&behind);
    check(MARK, target.dwords[1], "a batch behind a spinner executes in the end %s", name);
    object_end(&target);
    object_end(&other);
}

/* A fence of a batch is signalled when it has ended; a batch that waits for it does so on another engine. */
static void fences(int file, unsigned first, unsigned second)
{
    struct spinner spinner = spinner_start((struct queue){file, 0, &engines[first]}, I915_EXEC_FENCE_OUT);
    struct object target = object_new(file, PAGE_SIZE);
    struct batch batch = batch_new((struct queue){file, 0, &engines[second]}, PAGE_SIZE);
    const char *names[] = {engines[first].name, engines[second].name};
    int fence = spinner.batch.fence;
    batch_use(&batch, &target);
    emit_store(&batch, target.address, MARK);
    batch.flags = I915_EXEC_FENCE_IN | I915_EXEC_FENCE_OUT;
    batch.fence = fence;
    int result = batch_submit(&batch);
    if (result != 0)
        die("EXECBUFFER2 with a fence", -result);
    sleep_ms(SPIN_MS);
    check(0, signalled(fence), "the fence of a spinner is not signalled %s", names[0]);
    check(0, target.dwords[0], "a batch waits for a fence of %s %s", names[0], names[1]);
    spinner_stop(&spinner);
    wait_signalled(batch.fence, "a fence");
    check(1, signalled(fence), "the fence of a batch that has ended %s", names[0]);
    check(MARK, target.dwords[0], "a batch has waited for a fence of %s %s", names[0], names[1]);
    struct sync_file_info info = {0};
    ioctl(batch.fence, SYNC_IOC_FILE_INFO, &info);
    check(1, (uint64_t)info.status, "status of a fence %s", names[1]);
    close(fence);
    close(batch.fence);
    spinner_finish(&spinner);
    batch_finish(&batch);
    object_end(&target);
}

struct comparison {
    const char *name;
    uint32_t operation;
    uint32_t waits, goes_on; /* values of memory, compared with 100 */
};
/* MI_SEMAPHORE_WAIT, "Compare Operation": the value in memory and the one in the command. */
static const struct comparison comparisons[] = {
    {"greater", 0, 100, 101}, {"greater or equal", 1, 99, 100}, {"less", 2, 100, 99},
    {"less or equal", 3, 101, 100}, {"equal", 4, 0, 100}, {"not equal", 5, 100, 0x80000000},
};

static void emit_wait(struct batch *batch, uint32_t operation, uint64_t address)
{
    emit(batch, MI_SEMAPHORE_WAIT | SEMAPHORE_POLL | operation << 12);
    emit(batch, 100);
    emit_address(batch, address);
}

/* One engine waits for a value that another one stores. */
static void semaphore(int file, unsigned waiting, unsigned storing, const struct comparison *how)
{
    const char *names[] = {engines[waiting].name, engines[storing].name};
    struct object page = object_new(file, PAGE_SIZE), flag = object_new(file, PAGE_SIZE);
    struct batch waits = batch_new((struct queue){file, context_new(file), &engines[waiting]}, PAGE_SIZE);
    struct batch stores = batch_new((struct queue){file, 0, &engines[storing]}, PAGE_SIZE);
    flag.dwords[0] = how->waits;
    batch_read(&waits, &flag); /* the kernel orders batches by what they write, and must not do so here */
    batch_use(&waits, &page);
    emit_store(&waits, page.address, MARK);
    emit_wait(&waits, how->operation, flag.address);
    emit_store(&waits, page.address + 4, MARK);
    int result = batch_submit(&waits);
    if (result != 0)
        die("EXECBUFFER2 with a semaphore", -result);
    sleep_ms(SPIN_MS);
    check(MARK, page.dwords[0], "what is before a semaphore (%s) executes %s", how->name, names[0]);
    check(0, page.dwords[1], "what is behind a semaphore (%s) waits %s", how->name, names[0]);
    batch_read(&stores, &flag);
    emit_store(&stores, flag.address, how->goes_on);
    batch_run(&stores);
    check(0, (uint64_t)-object_wait(&waits.object, 30), "a semaphore (%s) is signalled by %s %s", how->name, names[1],
          names[0]);
    check(MARK, page.dwords[1], "what is behind a semaphore (%s) executes %s", how->name, names[0]);
    uint32_t context = waits.queue.context;
    batch_finish(&waits);
    context_end(file, context);
    object_end(&page);
    object_end(&flag);
}

void check_waits(unsigned size)
{
    (void)size;
    int file = gpu_open();
    for (unsigned i = 0; i < ENGINES; i++) {
        spin(file, i);
        fences(file, i, (i + 1) % ENGINES);
    }
    for (unsigned i = 0; i < sizeof comparisons / sizeof comparisons[0]; i++) {
        static const unsigned waiting[] = {RCS0, VCS0, VECS0};
        semaphore(file, waiting[i % 3], i % 2 == 0 ? BCS0 : waiting[(i + 1) % 3], &comparisons[i]);
    }
}
