#include "lab.h"

#include <xen/xen.h>
#include <xen/event_channel.h>
#include <xen/hvm/hvm_vcpu.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/vcpu.h>

#define XEN_CPUID_BASE 0x40000000u
#define DEBUG_PORT 0xe9
/* Where neither RAM nor a device is. */
#define SHARED_INFO_GPA 0xE0000000u
#define NAP_NANOSECONDS 20000000u

static struct vcpu vcpus[VCPUS] = { { .id = 0, .random = 0x2545F491u }, { .id = 1, .random = 0x9E3779B9u } };
static u8 hypercall_page[PAGE_SIZE] __attribute__((aligned(4096)));
static lock_t console_lock, failure_lock;
static volatile u32 arrived, round;

long hypercall3(u32 number, u32 a, const volatile void *b, const volatile void *c)
{
    long result;
    u32 entry = (u32)hypercall_page + number * 32;
    /* Xen may change the argument registers. */
    __asm__ volatile("call *%[entry]"
                     : "=a"(result), "+b"(a), "+c"(b), "+d"(c)
                     : [entry] "r"(entry)
                     : "memory");
    return result;
}

static void set_up_hypercalls(void)
{
    u32 eax, msr, ecx, edx;

    __asm__ volatile("cpuid" : "=a"(eax), "=b"(msr), "=c"(ecx), "=d"(edx) : "a"(XEN_CPUID_BASE + 2), "c"(0));
    __asm__ volatile("wrmsr" : : "c"(msr), "a"(hypercall_page), "d"(0) : "memory");
}

static void put(char c)
{
    __asm__ volatile("outb %0, %1" : : "a"(c), "Nd"((u16)DEBUG_PORT));
}

static void put_text(const char *text)
{
    while (*text)
        put(*text++);
}

void say(const char *text)
{
    acquire(&console_lock);
    put_text("[lab] ");
    put_text(text);
    put('\n');
    release(&console_lock);
}

void fail(const char *why)
{
    acquire(&failure_lock);
    if (!MAILBOX->failed) {
        for (u32 i = 0; i + 1 < sizeof MAILBOX->why && why[i]; i++)
            MAILBOX->why[i] = why[i];
        MAILBOX->failed = 1;
    }
    release(&failure_lock);
    say(why);
    for (;;)
        doze();
}

static void map_shared_info(void)
{
    struct xen_add_to_physmap place = {
        .domid = DOMID_SELF,
        .space = XENMAPSPACE_shared_info,
        .gpfn = SHARED_INFO_GPA / PAGE_SIZE,
    };

    if (hypercall3(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, &place, NULL))
        fail("Xen did not map the shared page");
}

/* Told by the stack: CPUID would leave the guest, which waiting should do as seldom as it can. */
static u32 this_vcpu(void)
{
    extern const u8 stack_of_first[];

    return (const u8 *)__builtin_frame_address(0) >= stack_of_first;
}

/* Nanoseconds since Xen started, by the formula beside struct vcpu_time_info in xen.h. */
static u64 system_time(void)
{
    const volatile struct vcpu_time_info *time = &((struct shared_info *)SHARED_INFO_GPA)->vcpu_info[this_vcpu()].time;
    u32 version, low, high;
    u64 elapsed, base;

    do {
        version = time->version;
        __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
        elapsed = ((u64)high << 32 | low) - time->tsc_timestamp;
        elapsed = time->tsc_shift < 0 ? elapsed >> -time->tsc_shift : elapsed << time->tsc_shift;
        elapsed = (elapsed >> 32) * time->tsc_to_system_mul + ((elapsed & 0xffffffffu) * time->tsc_to_system_mul >> 32);
        base = time->system_time;
    } while (version & 1 || version != time->version);
    return base + elapsed;
}

void doze(void)
{
    struct sched_poll nap = { .timeout = system_time() + NAP_NANOSECONDS };

    hypercall3(__HYPERVISOR_sched_op, SCHEDOP_poll, &nap, NULL);
}

void wait_event(u32 port)
{
    volatile struct shared_info *shared = (struct shared_info *)SHARED_INFO_GPA;
    evtchn_port_t ports[1] = { port };
    struct sched_poll wait = { .nr_ports = 1, .timeout = system_time() + NAP_NANOSECONDS };

    set_xen_guest_handle(wait.ports, ports);
    hypercall3(__HYPERVISOR_sched_op, SCHEDOP_poll, &wait, NULL);
    __atomic_fetch_and(&shared->evtchn_pending[port / 32], ~(1ul << port % 32), __ATOMIC_SEQ_CST);
}

void acquire(lock_t *lock)
{
    while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE))
        doze();
}

void release(lock_t *lock)
{
    __atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

void barrier(void)
{
    u32 mine = __atomic_load_n(&round, __ATOMIC_ACQUIRE);

    if (__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL) == RUNNING_VCPUS) {
        arrived = 0;
        __atomic_store_n(&round, mine + 1, __ATOMIC_RELEASE);
        return;
    }
    while (__atomic_load_n(&round, __ATOMIC_ACQUIRE) == mine)
        doze();
}

void checkpoint(struct vcpu *self, u32 number, const char *name)
{
    barrier();
    if (self->id == 0) {
        MAILBOX->stores = vcpus[0].stores + vcpus[1].stores;
        MAILBOX->traps = vcpus[0].traps + vcpus[1].traps;
        MAILBOX->verified = vcpus[0].verified + vcpus[1].verified;
        say(name);
        __atomic_store_n(&MAILBOX->checkpoint, number, __ATOMIC_RELEASE);
        while (__atomic_load_n(&MAILBOX->go, __ATOMIC_ACQUIRE) < number)
            doze();
    }
    barrier();
}

u32 random_below(struct vcpu *self, u32 bound)
{
    /* xorshift32 (Marsaglia 2003) */
    self->random ^= self->random << 13;
    self->random ^= self->random >> 17;
    self->random ^= self->random << 5;
    return (u32)(((u64)self->random * bound) >> 32);
}

void copy(void *to, const void *from, u32 bytes)
{
    u8 *t = to;
    const u8 *f = from;

    while (bytes--)
        *t++ = *f++;
}

u32 register_read(u32 offset)
{
    return *(volatile u32 *)(BAR0_GPA + offset);
}

void register_write(u32 offset, u32 value)
{
    *(volatile u32 *)(BAR0_GPA + offset) = value;
}

static void start_second(void)
{
    extern const char second_start[];
    static struct vcpu_hvm_context context;
    xen_vcpu_hvm_x86_32_t *cpu = &context.cpu_regs.x86_32;

    /* Protected mode with flat 4 GiB segments, as the first vCPU got it. */
    context.mode = VCPU_HVM_MODE_32B;
    cpu->cr0 = 0x11;
    cpu->eip = (u32)second_start;
    cpu->cs_limit = cpu->ds_limit = cpu->ss_limit = cpu->es_limit = 0xffffffffu;
    cpu->tr_limit = 0x67;
    cpu->cs_ar = 0xc9b;
    cpu->ds_ar = cpu->ss_ar = cpu->es_ar = 0xc93;
    cpu->tr_ar = 0x8b;
    if (hypercall3(__HYPERVISOR_vcpu_op, VCPUOP_initialise, (void *)1, &context) ||
        hypercall3(__HYPERVISOR_vcpu_op, VCPUOP_up, (void *)1, NULL))
        fail("Xen did not start the second vCPU");
}

void suspend(void)
{
    struct sched_shutdown order = { .reason = SHUTDOWN_suspend };

    hypercall3(__HYPERVISOR_sched_op, SCHEDOP_shutdown, &order, NULL);
    map_shared_info();
}

static __attribute__((noreturn)) void run(struct vcpu *self)
{
    struct sched_shutdown power_off = { .reason = SHUTDOWN_poweroff };

    barrier();
    guest_main(self);
    barrier();
    if (self->id == 0)
        hypercall3(__HYPERVISOR_sched_op, SCHEDOP_shutdown, &power_off, NULL);
    for (;;)
        doze();
}

void first_main(void);
void first_main(void)
{
    set_up_hypercalls();
    map_shared_info();
    MAILBOX->size = sizeof(struct mailbox);
    MAILBOX->magic = MAILBOX_MAGIC;
    if (RUNNING_VCPUS > 1)
        start_second();
    run(&vcpus[0]);
}

void second_main(void);
void second_main(void)
{
    run(&vcpus[1]);
}
