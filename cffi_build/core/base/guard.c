/*
 * Facts: touching a vanished page raises SIGBUS in the thread that touched it, synchronously, with the address. Python
 * does not survive it. sigsetjmp without the signal mask costs a few nanoseconds and no system call.
 *
 * What follows: an access announces, for its thread, the range of addresses in which it may fault. The handler jumps
 * back for a fault in that range alone; every other SIGBUS is a bug, and goes to the handler that was there before
 * ours. SA_NODEFER keeps the signal unblocked, so that the jump need not restore a mask.
 *
 * Cost: the handler is process-wide, so nobody else may install one afterwards without chaining to ours.
 */
#include "guard.h"

#include "access.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>

typedef struct guarded_range {
    sigjmp_buf escape;
    const char *start;
    const char *end;
} guarded_range;

/* initial-exec: the handler may not allocate, as the dynamic model does at a thread's first use. */
static __thread guarded_range *volatile active __attribute__((tls_model("initial-exec")));
static struct sigaction previous;
static bool installed;

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    guarded_range *range = active;
    const char *where = info->si_addr;
    if (range && where >= range->start && where < range->end) {
        active = NULL;
        siglongjmp(range->escape, 1);
    }
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(number, info, context);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(number);
    } else {
        struct sigaction fatal = {.sa_handler = SIG_DFL};
        sigaction(SIGBUS, &fatal, NULL);
        if (info->si_code <= 0)
            raise(number); /* sent by a process */
        /* Returning repeats the access, which now ends the process. */
    }
}

int xd_guard_install(void)
{
    if (installed)
        return 0;
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, &action, &previous))
        return -errno;
    installed = true;
    return 0;
}

/* The one place that touches foreign memory: `copy` runs with the range announced. */
#define GUARDED(address, size, copy)                                                                                   \
    do {                                                                                                               \
        guarded_range range = {.start = (address), .end = (const char *)(address) + (size)};                           \
        if (sigsetjmp(range.escape, 0))                                                                                \
            return -EFAULT;                                                                                            \
        active = &range;                                                                                               \
        __atomic_signal_fence(__ATOMIC_SEQ_CST);                                                                       \
        copy;                                                                                                          \
        __atomic_signal_fence(__ATOMIC_SEQ_CST);                                                                       \
        active = NULL;                                                                                                 \
        return 0;                                                                                                      \
    } while (0)

int xd_read(void *to, const void *from, uint64_t size)
{
    GUARDED(from, size, memcpy(to, from, size));
}

int xd_write(void *to, const void *from, uint64_t size)
{
    GUARDED(to, size, memcpy(to, from, size));
}

int xd_store(void *to, uint64_t value, uint32_t size)
{
    if (size > sizeof(value))
        return -EINVAL;
    GUARDED(to, size, xd_store_now(to, value, size));
}

int xd_load(const void *from, uint32_t size, uint64_t *value)
{
    if (size > sizeof(*value))
        return -EINVAL;
    GUARDED(from, size, xd_load_now(from, size, value));
}

static void read_words_now(uint64_t *to, const uint64_t *from, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

int xd_read_words(uint64_t *to, const uint64_t *from, uint64_t count)
{
    GUARDED((const char *)from, count * sizeof(*from), read_words_now(to, from, count));
}

int xd_guarded(const void *address, uint64_t size, void (*work)(const void *address, void *more), void *more)
{
    GUARDED(address, size, work(address, more));
}
