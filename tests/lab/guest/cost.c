/*
 * Does to its page tables and to the device what dom0 orders, a number of times, and says how long each took. With
 * QEMU's -icount a tick of the TSC is an instruction of the whole machine. tests/lab/scenarios/cost.py gives the orders.
 *
 * One vCPU in 64-bit mode. Nothing here is checked but that Xen answers: other scenarios are for that.
 */
#include <stdint.h>
#include <xen/xen.h>
#include <xen/memory.h>
#include <xen/sched.h>

typedef uint32_t u32;
typedef uint64_t u64;

#define PAGE_SIZE 4096u
#define ENTRIES 512u
#define XEN_CPUID_BASE 0x40000000u
/* Where neither RAM nor a device is. */
#define SHARED_INFO_GPA 0xE0000000u
#define NAP_NANOSECONDS 2000000u
#define BAR0_GPA 0xF0000000u

/* Registers: one without a behaviour, PVINFO's (i915_pvinfo.h), and the one whose write is a submission. */
#define PLAIN 0x2000u
#define PDP0 0x78838u
#define NOTIFY 0x78818u
#define L4_CREATE 4u
#define L4_DESTROY 5u
#define TLB_INVALIDATE 0x4260u

/* The tables; tests/lab/dom0/orders.py has the same. SPARE are for what is linked and unlinked. */
#define ROOT 0x00800000u
#define L3 0x00801000u
#define L2 0x00802000u
#define LEAVES 0x00803000u
#define MOST_LEAVES 128u
#define SPARE (LEAVES + MOST_LEAVES * PAGE_SIZE)
#define SPARES 64u
#define SCRATCH (SPARE + SPARES * PAGE_SIZE)
/* A second space, for a life of one. */
#define OTHER (SCRATCH + PAGE_SIZE)
#define PRESENT_WRITABLE 3u

/* A buffer of i915's life of a space: so many are bound, a submission after each tenth of them. */
#define BUFFERS 100u
#define BUFFER_PAGES 16u
#define SUBMISSIONS 10u

/* Orders; tests/lab/dom0/orders.py has the same. */
enum {
    ANNOUNCE = 1, DESTROY, STORE, REP, READ, WRITE, SAME_ENTRY, OTHER_ENTRY, LINK, REWRITE, FRESH, FILLED, SCATTER, LIFE,
    CPUID
};

#define MAGIC 0x54534F43u /* "COST" */
#define MOST_RUNS 64u
struct orders {
    u32 magic, given, done, what, runs, count, tables, failed;
    u64 ticks[MOST_RUNS];
};
#define ORDERS ((volatile struct orders *)0x00401000)

static uint8_t hypercall_page[PAGE_SIZE] __attribute__((aligned(4096)));
/* Grows with each run, so that no store repeats the value before it. */
static u64 turn;

void first_main(void);

static u64 ticks(void)
{
    u32 low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (u64)high << 32 | low;
}

static long hypercall2(u32 number, u64 a, const volatile void *b)
{
    long result;
    u64 entry = (u64)hypercall_page + number * 32;

    __asm__ volatile("call *%[entry]"
                     : "=a"(result), "+D"(a), "+S"(b)
                     : [entry] "r"(entry)
                     : "memory", "rcx", "rdx", "r8", "r9", "r10", "r11");
    return result;
}

static void cpuid(u32 leaf, u32 *b)
{
    u32 c = 0, d;

    __asm__ volatile("cpuid" : "+a"(leaf), "=b"(*b), "+c"(c), "=d"(d));
}

static void set_up(void)
{
    struct xen_add_to_physmap place = {
        .domid = DOMID_SELF,
        .space = XENMAPSPACE_shared_info,
        .gpfn = SHARED_INFO_GPA / PAGE_SIZE,
    };
    u32 msr;

    cpuid(XEN_CPUID_BASE + 2, &msr);
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((u32)(u64)hypercall_page), "d"(0) : "memory");
    if (hypercall2(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, &place))
        ORDERS->failed = 1;
}

/* Nanoseconds since Xen started, by the formula beside struct vcpu_time_info in xen.h. */
static u64 system_time(void)
{
    const volatile struct vcpu_time_info *time = &((struct shared_info *)(u64)SHARED_INFO_GPA)->vcpu_info[0].time;
    unsigned __int128 elapsed;
    u64 base;
    u32 version;

    do {
        version = time->version;
        elapsed = ticks() - time->tsc_timestamp;
        elapsed = time->tsc_shift < 0 ? elapsed >> -time->tsc_shift : elapsed << time->tsc_shift;
        base = time->system_time + (u64)(elapsed * time->tsc_to_system_mul >> 32);
    } while (version & 1 || version != time->version);
    return base;
}

static void doze(void)
{
    struct sched_poll nap = { .timeout = system_time() + NAP_NANOSECONDS };

    hypercall2(__HYPERVISOR_sched_op, SCHEDOP_poll, &nap);
}

static u32 register_read(u32 offset)
{
    return *(volatile u32 *)(u64)(BAR0_GPA + offset);
}

static void register_write(u32 offset, u32 value)
{
    *(volatile u32 *)(u64)(BAR0_GPA + offset) = value;
}

static void submit(void)
{
    register_write(TLB_INVALIDATE, 1);
}

static void set(u64 table, u32 index, u64 value)
{
    *(volatile u64 *)(table + 8 * index) = value;
}

static void fill(u64 table, u64 value, u64 count)
{
    __asm__ volatile("rep stosq" : "+D"(table), "+c"(count) : "a"(value) : "memory");
}

static u64 link_to(u64 table)
{
    return table | PRESENT_WRITABLE;
}

/* Another page of RAM in each turn. */
static u64 page_entry(u64 number)
{
    return (0x1000 + (number + 7 * turn) % 0x800) * PAGE_SIZE | PRESENT_WRITABLE;
}

static u64 leaf(u32 number)
{
    return LEAVES + number * PAGE_SIZE;
}

static void notify(u64 root, u32 what)
{
    register_write(PDP0, (u32)root);
    register_write(PDP0 + 4, (u32)(root >> 32));
    register_write(NOTIFY, what);
}

/* Everything with plain stores, before anybody knows of it. */
static void announce(u32 tables)
{
    fill(ROOT, 0, (OTHER - ROOT) / 8);
    set(ROOT, 0, link_to(L3));
    set(L3, 0, link_to(L2));
    for (u32 n = 0; n < tables; n++)
        set(L2, n, link_to(leaf(n)));
    notify(ROOT, L4_CREATE);
}

/* A leaf table that did not exist, as i915 makes one: filled with the scratch page, linked, `count` entries stored,
 * submitted, unlinked. `late`: the entries are stored after the link. */
static void fresh_table(u32 number, u32 count, int late)
{
    u64 table = SPARE + number % SPARES * PAGE_SIZE;

    fill(table, link_to(SCRATCH), ENTRIES);
    if (late)
        set(L2, ENTRIES - 1, link_to(table));
    for (u32 i = 0; i < count; i++)
        set(table, i, page_entry(i));
    if (!late)
        set(L2, ENTRIES - 1, link_to(table));
    submit();
    set(L2, ENTRIES - 1, 0);
}

/* An address space of i915: made, buffers bound one after the other and executed with, all unbound, and destroyed. */
static void life(void)
{
    u64 root = OTHER, l3 = OTHER + PAGE_SIZE, l2 = OTHER + 2 * PAGE_SIZE, leaves = OTHER + 3 * PAGE_SIZE;
    u32 bound = 0, linked = 0;

    fill(root, 0, ENTRIES);
    fill(l3, 0, ENTRIES);
    fill(l2, 0, ENTRIES);
    set(root, 0, link_to(l3));
    set(l3, 0, link_to(l2));
    notify(root, L4_CREATE);
    for (u32 buffer = 0; buffer < BUFFERS; buffer++) {
        for (u32 i = 0; i < BUFFER_PAGES; i++, bound++) {
            u64 table = leaves + bound / ENTRIES * PAGE_SIZE;

            if (bound / ENTRIES == linked) {
                fill(table, link_to(SCRATCH), ENTRIES);
                set(l2, linked++, link_to(table));
            }
            set(table, bound % ENTRIES, page_entry(bound));
        }
        if ((buffer + 1) % (BUFFERS / SUBMISSIONS) == 0)
            submit();
    }
    for (u32 i = 0; i < bound; i++)
        set(leaves + i / ENTRIES * PAGE_SIZE, i % ENTRIES, link_to(SCRATCH));
    for (u32 n = 0; n < linked; n++)
        set(l2, n, 0);
    notify(root, L4_DESTROY);
}

static void once(u32 what, u32 count, u32 tables)
{
    u32 unused;

    if (what == REP)
        fill(LEAVES, page_entry(0), count);
    else if (what == LIFE)
        life();
    else if (what == REWRITE) {
        for (u32 n = 0; n < tables; n++)
            for (u32 i = 0; i < count; i++)
                set(leaf(n), i, page_entry(n + i));
        submit();
    } else {
        for (u32 i = 0; i < count; i++) {
            switch (what) {
            case STORE: set(LEAVES, i % ENTRIES, page_entry(i)); break;
            case READ: register_read(PLAIN); break;
            case WRITE: register_write(PLAIN, i); break;
            case SAME_ENTRY: set(L2, i % tables, link_to(leaf(i % tables))); break;
            case OTHER_ENTRY: set(L2, ENTRIES - 1, link_to(leaf(i % 2))); break;
            case LINK: set(L2, ENTRIES - 1, i % 2 ? 0 : link_to(SPARE)); break;
            case FRESH: fresh_table(i, ENTRIES, 1); break;
            case FILLED: fresh_table(i, ENTRIES, 0); break;
            case SCATTER:
                set(leaf(i % tables), i / tables % ENTRIES, page_entry(i));
                submit();
                break;
            case CPUID: cpuid(XEN_CPUID_BASE, &unused); break;
            }
        }
    }
}

static void follow(void)
{
    u32 what = ORDERS->what, count = ORDERS->count, tables = ORDERS->tables;

    if (what == ANNOUNCE)
        announce(tables);
    else if (what == DESTROY)
        notify(ROOT, L4_DESTROY);
    else
        for (u32 run = 0; run < ORDERS->runs && run < MOST_RUNS; run++) {
            u64 begun;

            turn++;
            begun = ticks();
            once(what, count, tables);
            ORDERS->ticks[run] = ticks() - begun;
        }
}

void first_main(void)
{
    set_up();
    ORDERS->magic = MAGIC;
    for (;;) {
        while (ORDERS->given == ORDERS->done)
            doze();
        follow();
        __atomic_store_n(&ORDERS->done, ORDERS->given, __ATOMIC_RELEASE);
    }
}
