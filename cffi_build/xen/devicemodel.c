#include "devicemodel.h"

#include <errno.h>
#include <time.h>

/*
 * Facts: Xen answers EAGAIN for a page that is paged out, which it has begun to page in, and also for a shared page
 * that it cannot unshare because it has no memory (xen/arch/x86/hvm/dm.c set_mem_type). The first ends by itself, the
 * second may not, and the caller cannot tell which it is. What follows: a call asks again every 100 us, 512 times in
 * all, and then reports EAGAIN. Cost: a guest with such pages blocks its own device model for up to 51 ms a call (longer
 * with coarse timers). What is retried after that, and after any other errno: xengt_dm/traps/retry.py.
 */
enum { RETRIES = 512, RETRY_NS = 100 * 1000 };

static int set_type_retrying_eagain(xendevicemodel_handle *dmod, domid_t domid, hvmmem_type_t type, uint64_t gfn,
                                    unsigned int *retries)
{
    for (;;) {
        if (xendevicemodel_set_mem_type(dmod, domid, type, gfn, 1) == 0)
            return 0;
        int error = errno;
        if (error != EAGAIN || *retries == 0)
            return error;
        *retries -= 1;
        const struct timespec pause = {.tv_sec = 0, .tv_nsec = RETRY_NS};
        nanosleep(&pause, NULL);
    }
}

int xd_xen_set_mem_types(xendevicemodel_handle *dmod, domid_t domid, uint32_t type, const uint64_t *gfns,
                         uint32_t count, int *errors)
{
    unsigned int retries = RETRIES;
    int failed = 0;

    for (uint32_t i = 0; i < count; i++) {
        errors[i] = set_type_retrying_eagain(dmod, domid, (hvmmem_type_t)type, gfns[i], &retries);
        if (errors[i] == ESRCH) {
            for (uint32_t rest = i + 1; rest < count; rest++)
                errors[rest] = ESRCH;
            return -ESRCH;
        }
        failed += errors[i] != 0;
    }
    return failed;
}

__attribute__((format(printf, 5, 0))) static void say_nothing(struct xentoollog_logger *logger,
                                                              xentoollog_level level, int errnoval,
                                                              const char *context, const char *format, va_list args)
{
    (void)logger, (void)level, (void)errnoval, (void)context, (void)format, (void)args;
}

static void nothing_to_free(struct xentoollog_logger *logger)
{
    (void)logger;
}

struct xentoollog_logger *xd_xen_quiet_logger(void)
{
    static struct xentoollog_logger quiet = {.vmessage = say_nothing, .progress = NULL, .destroy = nothing_to_free};
    return &quiet;
}
