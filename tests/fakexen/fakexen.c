/* The fake's state, and what a test can do to it. */
#define _GNU_SOURCE
#include "fakexen.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

API struct fake_state fake = {.ram_fd = -1, .empty_fd = -1};

static struct {
    char call[64];
    unsigned int nth, times;
    int error;
} failures[16];
static char calls[1 << 16];

static void need(int good, const char *what)
{
    if (!good) {
        perror(what);
        abort();
    }
}

API void fake_reset(void)
{
    if (fake.ram_fd < 0) {
        fake.ram_fd = memfd_create("fake-ram", MFD_CLOEXEC);
        fake.empty_fd = memfd_create("fake-hole", MFD_CLOEXEC);
        need(fake.ram_fd >= 0 && fake.empty_fd >= 0, "memfd_create");
        need(ftruncate(fake.ram_fd, FAKE_FRAMES * FRAME_SIZE) == 0, "ftruncate");
        fake.ram = mmap(NULL, FAKE_FRAMES * FRAME_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fake.ram_fd, 0);
        need(fake.ram != MAP_FAILED, "mmap");
    }
    memset(fake.ram, 0, FAKE_FRAMES * FRAME_SIZE);
    memset(fake.types, 0, sizeof fake.types);
    memset(fake.paged_out, 0, sizeof fake.paged_out);
    memset(failures, 0, sizeof failures);
    for (unsigned int id = 0; id < FAKE_SERVERS; id++)
        fake_drop_server(id);
    fake.claim = -1;
    fake.stage = 0;
    fake.open_handles = 0;
    fake.restricted_to = -1;
    fake_forget();
    fake_device_reset();
}

API void fake_fail(const char *call, unsigned int nth, unsigned int times, int error)
{
    for (unsigned int i = 0; i < sizeof failures / sizeof *failures; i++) {
        if (failures[i].times == 0) {
            snprintf(failures[i].call, sizeof failures[i].call, "%s", call);
            failures[i].nth = nth;
            failures[i].times = times;
            failures[i].error = error;
            return;
        }
    }
    abort();
}

static int planned_failure(const char *call)
{
    for (unsigned int i = 0; i < sizeof failures / sizeof *failures; i++) {
        if (failures[i].times == 0 || strcmp(failures[i].call, call) != 0)
            continue;
        if (failures[i].nth > 1) {
            failures[i].nth--;
            continue;
        }
        failures[i].times--;
        return failures[i].error;
    }
    return 0;
}

API int fake_enter(int domid, const char *call, unsigned int nr_args, ...)
{
    size_t used = strlen(calls);
    va_list args;

    used += (size_t)snprintf(calls + used, sizeof calls - used, "%s(", call);
    va_start(args, nr_args);
    for (unsigned int i = 0; i < nr_args; i++)
        used += (size_t)snprintf(calls + used, sizeof calls - used, "%s%" PRIu64, i ? ", " : "",
                                 va_arg(args, uint64_t));
    va_end(args);
    snprintf(calls + used, sizeof calls - used, ")\n");
    need(used + 2 < sizeof calls, "more calls than the fake writes down");

    errno = planned_failure(call);
    if (errno == 0 && domid >= 0 && fake.restricted_to >= 0 && domid != fake.restricted_to)
        errno = EPERM;
    if (errno == 0 && domid >= 0 && (domid != FAKE_DOMID || fake.stage == 2))
        errno = ESRCH;
    return errno == 0 ? 0 : -1;
}

API const char *fake_calls(void)
{
    return calls;
}

API void fake_forget(void)
{
    calls[0] = 0;
}

API void fake_kill(int stage)
{
    fake.stage = stage;
    for (unsigned int id = 0; id < FAKE_SERVERS && stage > 0; id++)
        fake_drop_server(id);
    if (stage > 0)
        fake_device_raise_all();
}

API int fake_open_handles(void)
{
    return fake.open_handles;
}

API int fake_restricted_to(void)
{
    return fake.restricted_to;
}

API int fake_type(unsigned int gfn)
{
    return fake.types[gfn];
}

API void *fake_frame(unsigned int gfn)
{
    return fake.ram + (size_t)gfn * FRAME_SIZE;
}

API void fake_make_hole(unsigned int gfn)
{
    fake.types[gfn] = HVMMEM_mmio_dm;
}

API void fake_page_out(unsigned int gfn, unsigned int times)
{
    fake.paged_out[gfn] = times;
}

API int fake_claim(void)
{
    return fake.claim;
}

API void *fake_slots(unsigned int server)
{
    return fake.servers[server].slots;
}

API unsigned int fake_vp_eport(unsigned int server, unsigned int vcpu)
{
    return EPORT_FIRST + server * FAKE_VCPUS + vcpu;
}

/* 0 if this server is alive; -1 and ENOENT if not. */
API int fake_live_server(ioservid_t id)
{
    if (id < FAKE_SERVERS && fake.servers[id].alive)
        return 0;
    errno = ENOENT;
    return -1;
}

API void fake_drop_server(unsigned int id)
{
    struct fake_server *server = &fake.servers[id];

    if (server->slots)
        munmap(server->slots, FRAME_SIZE);
    memset(server, 0, sizeof *server);
    if (fake.claim == (int)id)
        fake.claim = -1;
}
