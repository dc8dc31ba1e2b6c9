/* Many small batches, several of them under way at a time. */
#include "batch.h"
#include "checks.h"

#include <stdio.h>

#define UNDER_WAY 12u
#define TELL 25u

struct work {
    struct batch batch;
    uint32_t value;
    unsigned slot;
};

static unsigned finish(struct work *work, const struct object *results)
{
    int result = batch_finish(&work->batch);
    if (result != 0)
        die("one of many batches to end", -result);
    return results->dwords[work->slot] != work->value;
}

void check_batches(unsigned size)
{
    int file = gpu_open();
    struct object results = object_new(file, PAGE_SIZE);
    struct work works[UNDER_WAY];
    unsigned wrong = 0;
    for (unsigned i = 0; i < size + UNDER_WAY; i++) {
        struct work *work = &works[i % UNDER_WAY];
        if (i >= UNDER_WAY)
            wrong += finish(work, &results);
        if (i < size) {
            *work = (struct work){batch_new((struct queue){file, 0, &engines[i % ENGINES]}, PAGE_SIZE), i + 1, i % 1024};
            batch_use(&work->batch, &results);
            emit_store(&work->batch, results.address + 4 * work->slot, work->value);
            int result = batch_submit(&work->batch);
            if (result != 0)
                die("EXECBUFFER2 of one of many", -result);
        }
        if (i % TELL == 0) {
            printf("at batch %u\n", i);
            fflush(stdout);
        }
    }
    check(0, wrong, "results of %u small batches", size);
    object_end(&results);
}
