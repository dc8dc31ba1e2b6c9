/*
 * Each vCPU does what dom0 tells it, one instruction or hypercall at a time, and says what came of it: the storing side of
 * tests/conformance. A fault (#UD, #GP, #PF) is an outcome like any other.
 */
#include "lab.h"

#include <xen/xen.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/version.h>

/* tests/conformance/xen.py has the same. */
#define COMMANDS_GPA 0x00600000u
#define COMMANDS_STRIDE 128u
#define MOST_FRAMES 8u
enum { READY = 1 };

/* In the order of OPS in tests/conformance/language.py. */
enum kind {
    STORE, LOAD, STOS, MOVS, XCHG, CMPXCHG, LOCKED, OUT, IN, REMOVE, ADD, HYPERCALL, PLAIN, GRANT, SHUTDOWN, OUTS, INS
};
enum { OR, AND, XOR, PLUS };

struct command {
    u32 sequence; /* dom0 counts it up when the rest is there */
    u32 done;     /* the guest follows when it is done */
    u32 port;     /* the event channel between the two */
    u32 kind, size, count, down;
    u32 fault;
    u64 addr, data;
    u64 value[2];
    u64 result;
};
_Static_assert(sizeof(struct command) <= COMMANDS_STRIDE, "a command has its place");

u32 guarded(void (*what)(struct command *), struct command *command);
extern const u8 faulted[];

/* guarded() gives 0, or 1 if the function faulted: then the handler has gone back to where guarded() was called. */
__asm__(".text\n"
        ".globl guarded, faulted\n"
        "guarded:\n"
        "    pushl %ebp\n    pushl %ebx\n    pushl %esi\n    pushl %edi\n"
        "    movl 20(%esp), %eax\n    movl 24(%esp), %ecx\n"
        "    xorl %edx, %edx\n    cmpl $stack_of_first, %esp\n    jb 1f\n    incl %edx\n"
        "1:  movl %esp, rescue(,%edx,4)\n"
        "    pushl %ecx\n    call *%eax\n    addl $4, %esp\n    xorl %eax, %eax\n    jmp 2f\n"
        "faulted:\n"
        "    xorl %edx, %edx\n    cmpl $stack_of_first, %esp\n    jb 1f\n    incl %edx\n"
        "1:  movl rescue(,%edx,4), %esp\n    movl $1, %eax\n"
        "2:  cld\n    popl %edi\n    popl %esi\n    popl %ebx\n    popl %ebp\n    ret\n"
        ".bss\n"
        ".globl rescue\n"
        "rescue: .skip 8\n"
        ".text\n");

/* Flat segments, like those that the guest was started with. */
static const u64 segments[] __attribute__((aligned(8))) = { 0, 0x00cf9b000000ffffull, 0x00cf93000000ffffull };
static u64 gates[32] __attribute__((aligned(8)));
struct table_register {
    u16 limit;
    u32 base;
} __attribute__((packed));

static void catch_faults(void)
{
    u32 entry = (u32)faulted;
    struct table_register gdt = { sizeof segments - 1, (u32)segments }, idt = { sizeof gates - 1, (u32)gates };

    for (u32 i = 0; i < sizeof gates / sizeof gates[0]; i++)
        gates[i] = (u64)(entry >> 16) << 48 | 0x8e0000080000ull | (entry & 0xffff) | 0x8ull << 16;
    __asm__ volatile("lgdt %0\n ljmp $8, $1f\n 1: movw $16, %%ax\n movw %%ax, %%ds\n movw %%ax, %%es\n movw %%ax, %%ss\n"
                     "lidt %1"
                     : : "m"(gdt), "m"(idt) : "eax", "memory");
}

static __attribute__((noreturn)) void no_such(void)
{
    fail("a command that this guest does not know");
}

static void store_wide(u8 *to, const u64 *from, u32 size)
{
    if (size == 8)
        __asm__ volatile("movq %1, %%xmm0; movq %%xmm0, %0" : "=m"(*(u64 *)to) : "m"(*from) : "memory");
    else
        __asm__ volatile("movdqu (%1), %%xmm0; movdqu %%xmm0, (%0)" : : "r"(to), "r"(from) : "memory");
}

static void do_store(struct command *c)
{
    u8 *to = (u8 *)(u32)c->addr;
    u32 value = (u32)c->value[0];

    switch (c->size) {
    case 1: __asm__ volatile("movb %1, %0" : "=m"(*to) : "q"((u8)value) : "memory"); return;
    case 2: __asm__ volatile("movw %1, %0" : "=m"(*(u16 *)to) : "r"((u16)value) : "memory"); return;
    case 4: __asm__ volatile("movl %1, %0" : "=m"(*(u32 *)to) : "r"(value) : "memory"); return;
    case 8: case 16: store_wide(to, c->value, c->size); return;
    default: no_such();
    }
}

static void do_load(struct command *c)
{
    const u8 *from = (const u8 *)(u32)c->addr;
    u32 value;

    switch (c->size) {
    case 1: __asm__ volatile("movzbl %1, %0" : "=r"(value) : "m"(*from) : "memory"); break;
    case 2: __asm__ volatile("movzwl %1, %0" : "=r"(value) : "m"(*(const u16 *)from) : "memory"); break;
    case 4: __asm__ volatile("movl %1, %0" : "=r"(value) : "m"(*(const u32 *)from) : "memory"); break;
    case 8:
        __asm__ volatile("movq %1, %%xmm0; movq %%xmm0, %0" : "=m"(c->result) : "m"(*(const u64 *)from) : "memory");
        return;
    default: no_such();
    }
    c->result = value;
}

/* The direction flag is cleared before anything else happens, and by guarded() if not even that comes. */
#define REPEAT(insn)                                                                                              \
    do {                                                                                                          \
        if (c->down)                                                                                              \
            __asm__ volatile("std; rep " insn "; cld"                                                             \
                             : "+D"(to), "+S"(from), "+c"(count) : "a"(value) : "memory", "cc");                  \
        else                                                                                                      \
            __asm__ volatile("rep " insn : "+D"(to), "+S"(from), "+c"(count) : "a"(value) : "memory", "cc");      \
    } while (0)

static void do_repeat(struct command *c)
{
    u32 to = (u32)c->addr, from = (u32)c->data, count = c->count, value = (u32)c->value[0];

    switch (c->kind << 8 | c->size) {
    case STOS << 8 | 1: REPEAT("stosb"); return;
    case STOS << 8 | 2: REPEAT("stosw"); return;
    case STOS << 8 | 4: REPEAT("stosl"); return;
    case MOVS << 8 | 1: REPEAT("movsb"); return;
    case MOVS << 8 | 2: REPEAT("movsw"); return;
    case MOVS << 8 | 4: REPEAT("movsl"); return;
    default: no_such();
    }
}

static void do_xchg(struct command *c)
{
    void *at = (void *)(u32)c->addr;
    u32 value = (u32)c->value[0];

    switch (c->size) {
    case 1: __asm__ volatile("xchgb %b0, %1" : "+q"(value), "+m"(*(u8 *)at) : : "memory"); break;
    case 2: __asm__ volatile("xchgw %w0, %1" : "+r"(value), "+m"(*(u16 *)at) : : "memory"); break;
    case 4: __asm__ volatile("xchgl %0, %1" : "+r"(value), "+m"(*(u32 *)at) : : "memory"); break;
    default: no_such();
    }
    c->result = c->size == 4 ? value : value & ((1u << c->size * 8) - 1);
}

static void do_cmpxchg(struct command *c)
{
    void *at = (void *)(u32)c->addr;
    u32 old = (u32)c->data, value = (u32)c->value[0];
    u64 wide = c->data;

    switch (c->size) {
    case 1: __asm__ volatile("lock cmpxchgb %b2, %1" : "+a"(old), "+m"(*(u8 *)at) : "q"(value) : "memory", "cc"); break;
    case 2: __asm__ volatile("lock cmpxchgw %w2, %1" : "+a"(old), "+m"(*(u16 *)at) : "r"(value) : "memory", "cc"); break;
    case 4: __asm__ volatile("lock cmpxchgl %2, %1" : "+a"(old), "+m"(*(u32 *)at) : "r"(value) : "memory", "cc"); break;
    case 8:
        __asm__ volatile("lock cmpxchg8b %1"
                         : "+A"(wide), "+m"(*(u64 *)at)
                         : "b"(value), "c"((u32)(c->value[0] >> 32))
                         : "memory", "cc");
        c->result = wide;
        return;
    default: no_such();
    }
    c->result = old;
}

#define MODIFY_ONE(insn)                                                                                          \
    switch (c->size) {                                                                                            \
    case 1: __asm__ volatile(insn "b %b1, %0" : "+m"(*(u8 *)at) : "q"(value) : "memory", "cc"); return;           \
    case 2: __asm__ volatile(insn "w %w1, %0" : "+m"(*(u16 *)at) : "r"(value) : "memory", "cc"); return;          \
    case 4: __asm__ volatile(insn "l %1, %0" : "+m"(*(u32 *)at) : "r"(value) : "memory", "cc"); return;           \
    default: no_such();                                                                                           \
    }
#define MODIFY(prefix)                                                                                            \
    switch (c->data) {                                                                                            \
    case OR: MODIFY_ONE(prefix "or") break;                                                                       \
    case AND: MODIFY_ONE(prefix "and") break;                                                                     \
    case XOR: MODIFY_ONE(prefix "xor") break;                                                                     \
    case PLUS: MODIFY_ONE(prefix "add") break;                                                                    \
    default: no_such();                                                                                           \
    }

static void do_locked(struct command *c)
{
    void *at = (void *)(u32)c->addr;
    u32 value = (u32)c->value[0];

    MODIFY("lock ")
}

static void do_plain(struct command *c)
{
    void *at = (void *)(u32)c->addr;
    u32 value = (u32)c->value[0];

    MODIFY("")
}

static void do_port(struct command *c)
{
    u16 port = (u16)c->addr;
    u32 value = c->kind == OUT ? (u32)c->value[0] : 0;

    switch (c->kind << 8 | c->size) {
    case OUT << 8 | 1: __asm__ volatile("outb %b0, %1" : : "a"(value), "d"(port)); return;
    case OUT << 8 | 2: __asm__ volatile("outw %w0, %1" : : "a"(value), "d"(port)); return;
    case OUT << 8 | 4: __asm__ volatile("outl %0, %1" : : "a"(value), "d"(port)); return;
    case IN << 8 | 1: __asm__ volatile("inb %1, %b0" : "+a"(value) : "d"(port)); break;
    case IN << 8 | 2: __asm__ volatile("inw %1, %w0" : "+a"(value) : "d"(port)); break;
    case IN << 8 | 4: __asm__ volatile("inl %1, %0" : "+a"(value) : "d"(port)); break;
    default: no_such();
    }
    c->result = value;
}

/* `addr` is the port, `data` the memory. */
#define REPEAT_PORT(insn)                                                                                         \
    do {                                                                                                          \
        if (c->down)                                                                                              \
            __asm__ volatile("std; rep " insn "; cld"                                                             \
                             : "+D"(to), "+S"(from), "+c"(count) : "d"(port) : "memory", "cc");                   \
        else                                                                                                      \
            __asm__ volatile("rep " insn : "+D"(to), "+S"(from), "+c"(count) : "d"(port) : "memory", "cc");       \
    } while (0)

static void do_port_string(struct command *c)
{
    u32 to = (u32)c->data, from = (u32)c->data, count = c->count;
    u16 port = (u16)c->addr;

    switch (c->kind << 8 | c->size) {
    case OUTS << 8 | 1: REPEAT_PORT("outsb"); return;
    case OUTS << 8 | 2: REPEAT_PORT("outsw"); return;
    case OUTS << 8 | 4: REPEAT_PORT("outsl"); return;
    case INS << 8 | 1: REPEAT_PORT("insb"); return;
    case INS << 8 | 2: REPEAT_PORT("insw"); return;
    case INS << 8 | 4: REPEAT_PORT("insl"); return;
    default: no_such();
    }
}

static void do_frames(struct command *c)
{
    xen_pfn_t frames[MOST_FRAMES];
    struct xen_memory_reservation change = { .nr_extents = c->count, .domid = DOMID_SELF };
    u32 what = c->kind == REMOVE ? XENMEM_decrease_reservation : XENMEM_populate_physmap;

    if (c->count > MOST_FRAMES)
        no_such();
    for (u32 i = 0; i < c->count; i++)
        frames[i] = (xen_pfn_t)c->addr + i;
    set_xen_guest_handle(change.extent_start, frames);
    if (hypercall3(__HYPERVISOR_memory_op, what, &change, NULL) != (long)c->count)
        fail("Xen did not take or give frames");
}

/* The page that dom0 granted as `data` is put at `addr`, for reading only if `count`. */
static void do_grant(struct command *c)
{
    struct gnttab_map_grant_ref map = {
        .host_addr = c->addr * PAGE_SIZE,
        .flags = GNTMAP_host_map | (c->count ? GNTMAP_readonly : 0),
        .ref = (grant_ref_t)c->data,
    };

    if (hypercall3(__HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref, &map, (void *)1) || map.status)
        fail("Xen did not map a grant");
}

static void execute(struct command *c)
{
    struct sched_shutdown power_off = { .reason = SHUTDOWN_poweroff };

    switch (c->kind) {
    case STORE: do_store(c); return;
    case LOAD: do_load(c); return;
    case STOS: case MOVS: do_repeat(c); return;
    case XCHG: do_xchg(c); return;
    case CMPXCHG: do_cmpxchg(c); return;
    case LOCKED: do_locked(c); return;
    case PLAIN: do_plain(c); return;
    case OUT: case IN: do_port(c); return;
    case OUTS: case INS: do_port_string(c); return;
    case REMOVE: case ADD: do_frames(c); return;
    case GRANT: do_grant(c); return;
    case HYPERCALL:
        c->result = (u64)-hypercall3(__HYPERVISOR_xen_version, XENVER_extraversion, (void *)(u32)c->addr, NULL);
        return;
    case SHUTDOWN:
        c->result = 1;
        hypercall3(__HYPERVISOR_sched_op, SCHEDOP_shutdown, &power_off, NULL);
        return;
    default: no_such();
    }
}

void guest_main(struct vcpu *self)
{
    struct command *c = (struct command *)(COMMANDS_GPA + self->id * COMMANDS_STRIDE);
    struct evtchn_alloc_unbound channel = { .dom = DOMID_SELF, .remote_dom = 0 };

    catch_faults();
    if (hypercall3(__HYPERVISOR_event_channel_op, EVTCHNOP_alloc_unbound, &channel, NULL))
        fail("Xen gave no event channel");
    c->port = channel.port;
    checkpoint(self, READY, "ready for commands");
    for (;;) {
        struct evtchn_send tell = { .port = channel.port };

        while (__atomic_load_n(&c->sequence, __ATOMIC_ACQUIRE) == c->done)
            wait_event(channel.port);
        c->result = 0;
        c->fault = guarded(execute, c);
        __atomic_store_n(&c->done, c->sequence, __ATOMIC_RELEASE);
        hypercall3(__HYPERVISOR_event_channel_op, EVTCHNOP_send, &tell, NULL);
    }
}
