#include "space.h"

/* Gen8 page-table entries (Broadwell PRM, volume 7; i915's gen8_ppgtt.c). */
#define ENTRY_PRESENT 0x1u
#define ENTRY_WRITABLE 0x2u
#define ENTRY_PWT 0x8u
#define ENTRY_PCD 0x10u
#define ENTRY_PAT 0x80u
/* Bits that carry no meaning in a leaf: ignored ones among the low 12, and all above the address at 45:12. */
#define ENTRY_JUNK_LOW 0xE64u
#define ENTRY_JUNK_HIGH 46

/* PVINFO registers (i915_pvinfo.h), from the start of its page. */
#define PVINFO_PDP0_LO 0x838u
#define PVINFO_PDP0_HI 0x83Cu
#define PVINFO_NOTIFY 0x818u
#define NOTIFY_L4_CREATE 4u
#define NOTIFY_L4_DESTROY 5u

struct intent_record {
    u64 va;
    u64 intent;
};

static struct table tables[TABLES];
static u32 tables_used;
static lock_t pvinfo_lock, reach_lock;

static u8 *page_of(const struct table *table)
{
    return (u8 *)table->gpa;
}

struct table *table_new(u32 level)
{
    struct table *table = &tables[tables_used];

    if (tables_used == TABLES)
        fail("the guest ran out of table pages");
    table->gpa = POOL_GPA + tables_used++ * PAGE_SIZE;
    table_reset(table, level);
    return table;
}

void table_reset(struct table *table, u32 level)
{
    table->level = level;
    for (u32 i = 0; i < ENTRIES; i++)
        table->means.leaf[i] = 0;
    for (u32 i = 0; i < PAGE_SIZE; i++)
        table->bytes[i] = page_of(table)[i] = 0;
}

static u64 encode(struct vcpu *self, u64 intent)
{
    u64 entry = intent & ~0xfffull;
    u32 cache = (u32)intent & INTENT_CACHE;

    entry |= random_below(self, 0x1000) & ENTRY_JUNK_LOW;
    entry |= (u64)random_below(self, 0x20000) << ENTRY_JUNK_HIGH;
    entry |= (cache & 4 ? ENTRY_PAT : 0) | (cache & 2 ? ENTRY_PCD : 0) | (cache & 1 ? ENTRY_PWT : 0);
    entry |= (intent & INTENT_WRITABLE ? ENTRY_WRITABLE : 0) | (intent & INTENT_PRESENT ? ENTRY_PRESENT : 0);
    return entry;
}

static void count(struct vcpu *self, const struct table *table, u32 writes)
{
    self->stores += writes;
    if (table->reached)
        self->traps += writes;
    MAILBOX->progress[self->id] = self->stores;
}

static void expect(struct table *table, u32 offset, const void *from, u32 bytes)
{
    copy(table->bytes + offset, from, bytes);
}

void set_leaves(struct vcpu *self, struct table *table, u32 first, u32 count_, const u64 *intents, enum store_way way)
{
    u64 entries[ENTRIES];

    for (u32 i = 0; i < count_; i++) {
        table->means.leaf[first + i] = intents[i];
        entries[i] = encode(self, intents[i]);
    }
    expect(table, first * 8, entries, count_ * 8);
    count(self, table, store(way, page_of(table) + first * 8, entries, count_ * 8));
}

void set_across(struct vcpu *self, struct table *before, struct table *after, const u64 intents[2], enum store_way way)
{
    u64 entries[2] = { encode(self, intents[0]), encode(self, intents[1]) };
    u32 writes[2];

    before->means.leaf[ENTRIES - 1] = intents[0];
    after->means.leaf[0] = intents[1];
    expect(before, PAGE_SIZE - 8, &entries[0], 8);
    expect(after, 0, &entries[1], 8);
    store_across(way, page_of(after), entries, writes);
    count(self, before, writes[0]);
    count(self, after, writes[1]);
}

void set_from_registers(struct vcpu *self, struct table *table, u32 index, u64 intent, u32 at)
{
    u64 entry = encode(self, intent);
    u32 words = 2, from = BAR0_GPA + at, to = table->gpa + index * 8;

    table->means.leaf[index] = intent;
    register_write(at, (u32)entry);
    register_write(at + 4, (u32)(entry >> 32));
    expect(table, index * 8, &entry, 8);
    __asm__ volatile("rep movsl" : "+c"(words), "+S"(from), "+D"(to) : : "memory");
    count(self, table, 2);
}

void clear_leaves(struct vcpu *self, struct table *table, u32 first, u32 count_, int wide)
{
    for (u32 i = first; i < first + count_; i++) {
        static const u64 nothing = 0;

        table->means.leaf[i] = 0;
        expect(table, i * 8, &nothing, 8);
    }
    count(self, table, store_fill(page_of(table) + first * 8, 0, count_ * 8, wide));
}

static void reach(struct table *table)
{
    if (table->reached++ || table->level == 1)
        return;
    for (u32 i = 0; i < ENTRIES; i++)
        if (table->means.child[i])
            reach(table->means.child[i]);
}

static void leave(struct table *table)
{
    if (--table->reached || table->level == 1)
        return;
    for (u32 i = 0; i < ENTRIES; i++)
        if (table->means.child[i])
            leave(table->means.child[i]);
}

void set_child(struct vcpu *self, struct table *directory, u32 index, struct table *child, enum store_way way)
{
    u64 entry = child ? child->gpa | ENTRY_PRESENT | ENTRY_WRITABLE : 0;

    expect(directory, index * 8, &entry, 8);
    count(self, directory, store(way, page_of(directory) + index * 8, &entry, 8));
    acquire(&reach_lock);
    if (directory->reached && child)
        reach(child);
    if (directory->reached && directory->means.child[index])
        leave(directory->means.child[index]);
    directory->means.child[index] = child;
    release(&reach_lock);
}

void table_scribble(struct vcpu *self, struct table *table)
{
    u8 noise[64] __attribute__((aligned(16)));

    for (u32 way = 0; way < STORE_WAYS; way++) {
        u32 offset = random_below(self, PAGE_SIZE / sizeof noise) * sizeof noise;

        for (u32 i = 0; i < sizeof noise; i++)
            noise[i] = (u8)random_below(self, 0x100);
        expect(table, offset, noise, sizeof noise);
        count(self, table, store(way, page_of(table) + offset, noise, sizeof noise));
    }
}

static void notify(const struct table *root, u32 what)
{
    acquire(&pvinfo_lock);
    register_write(PVINFO + PVINFO_PDP0_LO, root->gpa);
    register_write(PVINFO + PVINFO_PDP0_HI, 0);
    register_write(PVINFO + PVINFO_NOTIFY, what);
    release(&pvinfo_lock);
}

void space_create(struct table *root)
{
    notify(root, NOTIFY_L4_CREATE);
    acquire(&reach_lock);
    reach(root);
    release(&reach_lock);
}

void space_destroy(struct table *root)
{
    notify(root, NOTIFY_L4_DESTROY);
    acquire(&reach_lock);
    leave(root);
    release(&reach_lock);
}

u64 random_intent(struct vcpu *self)
{
    /* Above all RAM, below the registers and Xen's own pages; and far beyond 32 bits. */
    static const u64 no_ram[] = { 0x08000000ull, 0xC0000000ull, 0x100000000ull, 0x3FFFFFFFF000ull };
    u64 flags = random_below(self, INTENT_CACHE + 1);

    flags |= random_below(self, 2) ? INTENT_WRITABLE : 0;
    switch (random_below(self, 8)) {
    case 0:
        return flags;
    case 1:
        return no_ram[random_below(self, sizeof no_ram / sizeof *no_ram)] | flags | INTENT_PRESENT | INTENT_NO_RAM;
    default:
        /* The first and the last MiB are not used: there the start-of-day structures are. */
        return ((u64)(0x100 + random_below(self, RAM_SIZE / PAGE_SIZE - 0x200)) << 12) | flags | INTENT_PRESENT;
    }
}

void table_verify(struct vcpu *self, const struct table *table)
{
    table_verify_part(self, table, 0, PAGE_SIZE);
}

void table_verify_part(struct vcpu *self, const struct table *table, u32 offset, u32 bytes)
{
    const volatile u8 *page = page_of(table);

    for (u32 i = offset; i < offset + bytes; i++)
        if (page[i] != table->bytes[i])
            fail("a table page does not hold what the guest stored");
    self->verified += bytes;
}

static void publish_table(const struct table *table, u64 va, struct intent_record **next)
{
    for (u32 i = 0; i < ENTRIES; i++) {
        u64 at = va | ((u64)i << (3 + 9 * table->level));

        if (table->level > 1) {
            if (table->means.child[i])
                publish_table(table->means.child[i], at, next);
        } else if (table->means.leaf[i] & INTENT_PRESENT) {
            if ((u32)(*next + 1) > INTENT_END)
                fail("the intent area is full");
            **next = (struct intent_record){ at, table->means.leaf[i] };
            ++*next;
        }
    }
}

void publish_intents(struct table *const roots[VCPUS])
{
    struct intent_record *next = (struct intent_record *)INTENT_GPA;
    u32 reached = 0;

    for (u32 i = 0; i < VCPUS; i++) {
        struct intent_record *first = next;

        MAILBOX->roots[i] = roots[i] ? roots[i]->gpa : 0;
        if (roots[i])
            publish_table(roots[i], 0, &next);
        MAILBOX->intents[i] = (u32)(next - first);
    }
    for (u32 i = 0; i < tables_used; i++)
        reached += tables[i].reached != 0;
    MAILBOX->tables = reached;
}
