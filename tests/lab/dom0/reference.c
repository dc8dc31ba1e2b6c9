/*
 * The least that a device model in C can do, to compare with: reference WAIT DOMID FIRST COUNT BAR0 BYTES
 *
 * It write-protects COUNT frames from FIRST on, and answers what the domain does to them and to BAR0: it stores to the
 * guest's memory, keeps a second copy, and knows nothing of tables. WAIT is how it waits for the next request:
 *
 *   poll   poll, read the port, unmask it, answer, notify, as every device model does
 *   read   the same with a read that blocks in place of poll
 *   spin   the port stays masked, and the slot is looked at without end; that needs a processor of its own
 *   yield  the same, and the processor goes to the guest between two looks: the least that one processor needs
 *
 * Says "serving" when it does, and ends after SIGTERM. One vCPU.
 */
#define __XEN_TOOLS__ 1
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <xencall.h>
#include <xenctrl.h>
#include <xen/hvm/dm_op.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/ioreq.h>
#include <xen/sched.h>
#include <xendevicemodel.h>
#include <xenevtchn.h>
#include <xenforeignmemory.h>

#define PAGE_SHIFT 12

static volatile sig_atomic_t ending;

static void end(int number)
{
    ending = number;
}

static void require(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

struct model {
    domid_t domid;
    uint64_t first, count, bar0, bytes;
    xendevicemodel_handle *calls;
    xenforeignmemory_handle *foreign;
    xenevtchn_handle *events;
    xencall_handle *hypercalls;
    ioservid_t server;
    volatile ioreq_t *slot;
    evtchn_port_t port;
    uint8_t *frames, *copies, *registers;
};

static void set_types(const struct model *m, hvmmem_type_t type)
{
    for (uint64_t n = 0; n < m->count; n++)
        require(!xendevicemodel_set_mem_type(m->calls, m->domid, type, m->first + n, 1), "set_mem_type");
}

static void open_model(struct model *m)
{
    shared_iopage_t *page = NULL;
    xen_pfn_t *gfns = calloc(m->count, sizeof *gfns);
    int *errors = calloc(m->count, sizeof *errors), port;

    m->calls = xendevicemodel_open(NULL, 0);
    m->foreign = xenforeignmemory_open(NULL, 0);
    m->events = xenevtchn_open(NULL, 0);
    m->hypercalls = xencall_open(NULL, 0);
    m->copies = calloc(m->count, XC_PAGE_SIZE);
    m->registers = calloc(1, m->bytes);
    require(m->calls && m->foreign && m->events && m->hypercalls && m->copies && m->registers && gfns && errors, "open");
    require(!xendevicemodel_create_ioreq_server(m->calls, m->domid, HVM_IOREQSRV_BUFIOREQ_OFF, &m->server), "create");
    require(xenforeignmemory_map_resource(m->foreign, m->domid, XENMEM_resource_ioreq_server, m->server,
                                          XENMEM_resource_ioreq_server_frame_ioreq(0), 1, (void **)&page,
                                          PROT_READ | PROT_WRITE, 0) != NULL, "map the slots");
    m->slot = &page->vcpu_ioreq[0];
    require(!xendevicemodel_map_io_range_to_ioreq_server(m->calls, m->domid, m->server, 1, m->bar0,
                                                         m->bar0 + m->bytes - 1), "map BAR0");
    require(!xendevicemodel_set_ioreq_server_state(m->calls, m->domid, m->server, 1), "enable");
    require(!xendevicemodel_map_mem_type_to_ioreq_server(m->calls, m->domid, m->server, HVMMEM_ioreq_server,
                                                         XEN_DMOP_IOREQ_MEM_ACCESS_WRITE), "claim");
    port = xenevtchn_bind_interdomain(m->events, m->domid, m->slot->vp_eport);
    require(port >= 0, "bind");
    m->port = (evtchn_port_t)port;
    for (uint64_t n = 0; n < m->count; n++)
        gfns[n] = m->first + n;
    m->frames = xenforeignmemory_map(m->foreign, m->domid, PROT_READ | PROT_WRITE, m->count, gfns, errors);
    require(m->frames != NULL, "map the frames");
    free(gfns);
    free(errors);
    set_types(m, HVMMEM_ioreq_server);
}

static void close_model(const struct model *m)
{
    set_types(m, HVMMEM_ram_rw);
    xendevicemodel_map_mem_type_to_ioreq_server(m->calls, m->domid, m->server, HVMMEM_ioreq_server, 0);
    xendevicemodel_set_ioreq_server_state(m->calls, m->domid, m->server, 0);
    xendevicemodel_destroy_ioreq_server(m->calls, m->domid, m->server);
}

/* One of the request's accesses, at `address`. */
static void perform(const struct model *m, ioreq_t *request, uint64_t address)
{
    uint64_t table = address - (m->first << PAGE_SHIFT), offset = address - m->bar0;

    if (table + request->size <= m->count << PAGE_SHIFT && request->dir == IOREQ_WRITE) {
        memcpy(m->frames + table, &request->data, request->size);
        memcpy(m->copies + table, &request->data, request->size);
    } else if (offset + request->size <= m->bytes) {
        if (request->dir == IOREQ_WRITE) {
            memcpy(m->registers + offset, &request->data, request->size);
        } else {
            request->data = 0;
            memcpy(&request->data, m->registers + offset, request->size);
        }
    }
}

/* Answers the request that waits, if any. Returns whether there was one. */
static int serve(const struct model *m)
{
    ioreq_t request;
    uint64_t step;

    if (m->slot->state != STATE_IOREQ_READY)
        return 0;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    m->slot->state = STATE_IOREQ_INPROCESS;
    request = *m->slot;
    step = request.df ? (uint64_t)-(int64_t)request.size : request.size;
    for (uint32_t n = 0; n < request.count; n++)
        perform(m, &request, request.addr + n * step);
    m->slot->data = request.data;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    m->slot->state = STATE_IORESP_READY;
    require(!xenevtchn_notify(m->events, m->port), "notify");
    return 1;
}

/* Serves by the event channel. `polls`: poll comes before read. */
static void serve_events(const struct model *m, int polls)
{
    int fd = xenevtchn_fd(m->events);
    evtchn_port_t fired;

    require(!fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK), "fcntl");
    while (!ending) {
        struct pollfd wanted = { .fd = fd, .events = POLLIN };

        if (polls && poll(&wanted, 1, -1) <= 0)
            continue;
        if (read(fd, &fired, sizeof fired) != sizeof fired)
            continue;
        require(!xenevtchn_unmask(m->events, fired), "unmask");
        serve(m);
    }
}

/* Serves by looking at the slot. The first event masks the port, and nobody unmasks it. */
static void serve_looks(const struct model *m, int yields)
{
    while (!ending) {
        serve(m);
        if (yields)
            xencall2(m->hypercalls, __HYPERVISOR_sched_op, SCHEDOP_yield, 0);
        else
            __builtin_ia32_pause();
    }
}

int main(int count, char **words)
{
    struct sigaction action = { .sa_handler = end };
    struct model m = { 0 };

    if (count != 7)
        return 64;
    m.domid = (domid_t)strtoul(words[2], NULL, 0);
    m.first = strtoull(words[3], NULL, 0);
    m.count = strtoull(words[4], NULL, 0);
    m.bar0 = strtoull(words[5], NULL, 0);
    m.bytes = strtoull(words[6], NULL, 0);
    sigaction(SIGTERM, &action, NULL); /* without SA_RESTART, so that a blocking read ends */
    open_model(&m);
    puts("serving");
    fflush(stdout);
    if (!strcmp(words[1], "poll") || !strcmp(words[1], "read"))
        serve_events(&m, !strcmp(words[1], "poll"));
    else
        serve_looks(&m, !strcmp(words[1], "yield"));
    close_model(&m);
    return 0;
}
