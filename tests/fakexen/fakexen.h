#ifndef FAKEXEN_H
#define FAKEXEN_H
#include <errno.h>
#include <stdint.h>
#include <xendevicemodel.h>
#include <xenevtchn.h>
#include <xenforeignmemory.h>
#include <xentoolcore.h>

#include "control.h"

enum { FRAME_SIZE = 4096, NR_PORTS = 64, PORT_FIRST = 8, EPORT_FIRST = 100 };

struct fake_server {
    int alive;
    int enabled;
    void *slots;
};

/* One process, one fake: the four libraries are front doors to this. */
struct fake_state {
    int ram_fd;
    int empty_fd; /* mapped where a frame is no RAM: touching it is SIGBUS, as with the kernel's */
    uint8_t *ram;
    int types[FAKE_FRAMES];
    unsigned int paged_out[FAKE_FRAMES];
    struct fake_server servers[FAKE_SERVERS];
    int claim;
    int stage;
    int open_handles;
    int restricted_to;
};
extern struct fake_state fake;

/*
 * Each library function starts with ENTER, which writes the call down and fails it if it is to fail: because a test
 * said so, or because the domain is gone.
 */
int fake_enter(int domid, const char *call, unsigned int nr_args, ...);
#define COUNT_(a, b, c, d, e, f, g, h, n, ...) n
#define COUNT(...) COUNT_(__VA_ARGS__, 8, 7, 6, 5, 4, 3, 2, 1)
#define U64(x) ((uint64_t)(x))
#define ENTER(domid, ...) fake_enter((int)(domid), __func__, COUNT(__VA_ARGS__), __VA_ARGS__)

int fake_live_server(ioservid_t id);
void fake_drop_server(unsigned int id);

/* The event-channel device. */
int fake_device_open(void);
void fake_device_close(void);
int fake_device_fd(void);
int fake_device_bind(uint32_t remote_port);
int fake_device_unbind(uint32_t port);
int fake_device_notify(uint32_t port);
void fake_device_reset(void);
void fake_device_raise_all(void);

#endif
