/*
 * Runtime of the lab's guest programs: two vCPUs without interrupts or paging, Xen's debug console, registers of the
 * device, and a mailbox page that dom0 reads and writes through a foreign mapping.
 */
#ifndef LAB_H
#define LAB_H

#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define PAGE_SIZE 4096u
#define VCPUS 2u
/* How many of them there really are. */
#ifndef RUNNING_VCPUS
#define RUNNING_VCPUS VCPUS
#endif

/* Guest memory; tests/lab/dom0/guest.py has the same values. */
#define RAM_SIZE 0x04000000u
#define MAILBOX_GPA 0x00400000u
#define INTENT_GPA 0x00401000u
#define INTENT_END 0x00600000u
#define POOL_GPA 0x00800000u

/* BAR0 of the device, and its PVINFO page (i915_pvinfo.h). */
#ifndef BAR0_GPA
#define BAR0_GPA 0xF0000000u
#endif
#define PVINFO 0x78000u

/*
 * The mailbox. The guest writes all fields but `go` and `order`, which dom0 writes. Only 32-bit words, so that its layout
 * is plain; tests/lab/dom0/guest.py names the same fields in the same order.
 */
#define MAILBOX_MAGIC 0x42414C58u /* "XLAB" */
struct mailbox {
    u32 magic;
    u32 size;
    u32 checkpoint; /* the latest checkpoint that the guest reached */
    u32 go;         /* the latest checkpoint that it may leave */
    u32 order;      /* meaning given by the program */
    u32 failed;
    u32 stores;          /* writes made to table pages, in units that are trapped as one */
    u32 traps;           /* those of them that hit a page which a live space reaches */
    u32 verified;        /* bytes of table pages compared with what was meant */
    u32 tables;          /* table pages that live spaces reach */
    u32 progress[VCPUS]; /* stores made by each vCPU, while it makes them */
    u32 roots[VCPUS];    /* roots of the live spaces, 0 for none */
    u32 intents[VCPUS];  /* records of each space, one space after the other in the intent area */
    u32 wanted;          /* submissions asked for so far: the device has no register for that */
    u32 refs[VCPUS];     /* how often each space is announced */
    char why[96];        /* the first failure */
};
#define MAILBOX ((volatile struct mailbox *)MAILBOX_GPA)

/* What one vCPU counts and draws. */
struct vcpu {
    u32 id;
    u32 random;
    u32 stores;
    u32 traps;
    u32 verified;
};

/* The program: called once on each vCPU, with the other one running. The guest shuts down when both have returned. */
void guest_main(struct vcpu *self);

/* Console: one line, whole. */
void say(const char *text);

/* Record the first failure, and stop this vCPU for good. */
__attribute__((noreturn)) void fail(const char *why);

/* Wait until both vCPUs are here. */
void barrier(void);

/* Both vCPUs: publish the counters and wait until dom0 lets the guest go on. */
void checkpoint(struct vcpu *self, u32 number, const char *name);

typedef volatile u32 lock_t;
void acquire(lock_t *lock);
void release(lock_t *lock);

/* Have the whole guest saved, and go on as the restored one. One vCPU calls it, the others wait for it meanwhile. */
void suspend(void);

/* Let the host's other vCPUs run for some time: for waiting. */
void doze(void);

/* Wait until an event channel of this guest fires, or for some time. */
void wait_event(u32 port);

/* A hypercall (xen.h) of up to three arguments; 0 or more, or a negative errno. */
long hypercall3(u32 number, u32 a, const volatile void *b, const volatile void *c);

/* The next pseudo-random number below `bound`; each vCPU has its own fixed sequence. */
u32 random_below(struct vcpu *self, u32 bound);

void copy(void *to, const void *from, u32 bytes);

u32 register_read(u32 offset);
void register_write(u32 offset, u32 value);

#endif
