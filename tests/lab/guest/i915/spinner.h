/* A batch that goes round until the CPU ends it. */
#ifndef SPINNER_H
#define SPINNER_H

#include "batch.h"

struct spinner {
    struct batch batch;
    uint32_t *flag;
};

/* Submit one. `flags` are more I915_EXEC_*. */
struct spinner spinner_start(struct queue queue, uint64_t flags);
/* Let it end. */
void spinner_stop(struct spinner *spinner);
/* Let it end, wait, give it up. */
void spinner_finish(struct spinner *spinner);

/* A loop that nothing ends. */
void emit_endless(struct batch *batch);

#endif
