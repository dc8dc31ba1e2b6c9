#include "spinner.h"

#define FLAG 512u /* a dword of the batch's own page */
#define END 1u    /* the batch ends if memory is not above it */

struct spinner spinner_start(struct queue queue, uint64_t flags)
{
    struct spinner spinner = {.batch = batch_new(queue, PAGE_SIZE)};
    struct batch *batch = &spinner.batch;
    spinner.flag = batch->object.dwords + FLAG;
    *spinner.flag = ~0u;
    batch->flags = flags;
    emit(batch, MI_ARB_CHECK);
    emit(batch, MI_CONDITIONAL_BATCH_BUFFER_END);
    emit(batch, END);
    emit_address(batch, batch->object.address + FLAG * sizeof(uint32_t));
    emit(batch, MI_BATCH_BUFFER_START);
    emit_address(batch, batch->object.address);
    int result = batch_submit(batch);
    if (result != 0)
        die("EXECBUFFER2 of a spinner", -result);
    return spinner;
}

void spinner_stop(struct spinner *spinner)
{
    *(volatile uint32_t *)spinner->flag = 0;
}

void spinner_finish(struct spinner *spinner)
{
    spinner_stop(spinner);
    int result = batch_finish(&spinner->batch);
    if (result != 0)
        die("a spinner to end", -result);
}

void emit_endless(struct batch *batch)
{
    uint64_t here = batch_here(batch);
    emit(batch, MI_ARB_CHECK);
    emit(batch, MI_BATCH_BUFFER_START);
    emit_address(batch, here);
}
