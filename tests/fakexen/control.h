/*
 * What a test can do to the fake Xen. One text for C and for cffi; libfakexen.so exports these. The fake has one
 * domain, FAKE_DOMID, with FAKE_FRAMES frames of RAM and FAKE_VCPUS vCPUs.
 */
enum { FAKE_DOMID = 7, FAKE_FRAMES = 64, FAKE_VCPUS = 3, FAKE_SERVERS = 8 };

/* Everything as new; the handles that the test left open are forgotten. */
void fake_reset(void);
/* The nth call from now of the library function `call`, and `times` - 1 after it, fail with `error`. */
void fake_fail(const char *call, unsigned int nth, unsigned int times, int error);
/*
 * 0: alive; 1: dying, as Xen has it while anybody holds the domain's memory: its servers and frames are gone, and the
 * domain still answers; 2: gone, ESRCH.
 */
void fake_kill(int stage);

/* The calls made since the last fake_forget, each as "name(arg, arg)\n" without handles and pointers. */
const char *fake_calls(void);
void fake_forget(void);
/* Handles and resources that are open. */
int fake_open_handles(void);
int fake_restricted_to(void);

/* RAM: the frame's type, its bytes, a hole where RAM was, and EAGAIN from set_mem_type that many times. */
int fake_type(unsigned int gfn);
void *fake_frame(unsigned int gfn);
void fake_make_hole(unsigned int gfn);
void fake_page_out(unsigned int gfn, unsigned int times);

/* The claim's owner or -1, and a server's page of slots or NULL. */
int fake_claim(void);
void *fake_slots(unsigned int server);
unsigned int fake_vp_eport(unsigned int server, unsigned int vcpu);

/* Event channels: raise a local port as Xen does, count our notifies, whether it is masked, bound the kernel's ring. */
void fake_raise(unsigned int port);
unsigned int fake_notified(unsigned int port);
int fake_masked(unsigned int port);
void fake_ring_size(unsigned int ports);
/* System calls made on the event-channel device. */
unsigned int fake_device_reads(void);
unsigned int fake_device_writes(void);
