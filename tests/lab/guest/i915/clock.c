/* The engines' time stamps: their rate, and that they never go back. */
#include "batch.h"
#include "checks.h"

#include <stdio.h>

#define TIMESTAMP 0x358u /* of an engine's registers; 36 bits */
#define TIMESTAMP_MASK ((1ull << 36) - 1)
#define RATE_SECONDS 1.0
#define READS 50

static uint64_t stamp(int file)
{
    struct drm_i915_reg_read read = {.offset = (engines[RCS0].base + TIMESTAMP) | I915_REG_READ_8B_WA};
    int result = call(file, DRM_IOCTL_I915_REG_READ, &read);
    if (result != 0)
        die("REG_READ", -result);
    return read.val & TIMESTAMP_MASK;
}

void check_clock(unsigned size)
{
    (void)size;
    int file = gpu_open();
    int frequency = gpu_parameter(file, I915_PARAM_CS_TIMESTAMP_FREQUENCY);
    check(12000000, (uint64_t)frequency, "frequency of the time stamp");
    /* Each reading lies between two of the CPU's clock; what is between the two at both ends is the error. */
    double before = seconds();
    uint64_t first = stamp(file);
    double after = seconds();
    uint64_t last = first;
    unsigned backwards = 0;
    for (unsigned i = 0; i < READS; i++) {
        uint64_t now = stamp(file);
        backwards += ((now - last) & TIMESTAMP_MASK) > TIMESTAMP_MASK / 2;
        last = now;
    }
    check(0, backwards, "time stamps that go back");
    while (seconds() < before + RATE_SECONDS)
        sleep_ms(50);
    double again = seconds();
    last = stamp(file);
    double end = seconds();
    double ticks = (double)((last - first) & TIMESTAMP_MASK);
    double least = (again - after) * frequency * 0.98, most = (end - before) * frequency * 1.02;
    check(1, ticks >= least && ticks <= most, "rate of the time stamp: %.0f ticks in %.3f to %.3f s", ticks, again - after,
          end - before);
}
