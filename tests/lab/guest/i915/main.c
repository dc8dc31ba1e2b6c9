/* client WORD [NUMBER] ...: checks of the GPU, a line each; exits with 1 if any failed. */
#include "checks.h"
#include "gpu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *word;
    void (*run)(unsigned size);
    unsigned size;
} words[] = {
    {"stores", check_stores, 0},
    {"clock", check_clock, 0},
    {"contexts", check_contexts, 0},
    {"spaces", check_spaces, 40},
    {"batches", check_batches, 500},
    {"registers", check_registers, 0},
    {"privilege", check_privilege, 0},
    {"waits", check_waits, 0},
    {"blits", check_blits, 0},
    {"aperture", check_aperture, 0},
    {"errors", check_errors, 0},
    {"hangs", check_hangs, 0},
};

static void run(const char *word, const char *number)
{
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i].word, word) == 0) {
            double start = seconds();
            words[i].run(number != NULL ? (unsigned)strtoul(number, NULL, 0) : words[i].size);
            printf("done %s in %.1f s\n", word, seconds() - start);
            fflush(stdout);
            return;
        }
    die(word, EINVAL);
}

int main(int count, char **arguments)
{
    for (int i = 1; i < count; i++) {
        bool sized = i + 1 < count && arguments[i + 1][0] >= '0' && arguments[i + 1][0] <= '9';
        run(arguments[i], sized ? arguments[i + 1] : NULL);
        i += sized;
    }
    return failures != 0;
}
