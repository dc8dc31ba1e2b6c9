/*
 * Two vCPUs store to tables, announce spaces and take announcements back, write registers, and move memory to and from
 * them with repeated instructions, while dom0 kills one daemon after another. The guest knows what everything should hold.
 * tests/lab/scenarios/kill.py watches.
 */
#include "space.h"

#define LEAVES 4u
#define MOST_REFS 3u
#define WORDS 64u /* registers of each vCPU, 4 bytes each */
#define RUN 16u   /* the longest repeated instruction, in elements */

/* Checkpoints and orders; tests/lab/scenarios/kill.py has the same. */
enum { READY = 1, RESTED };
enum { ORDER_STORE, ORDER_REST };

/* Registers that no driver knows: they read as stored. One page for each vCPU. */
#define REGISTERS(id) (0x40000u + (id) * PAGE_SIZE)

struct driver {
    struct table *root, *leaf[LEAVES];
    struct table *data; /* a page that no space reaches */
    u32 refs;
    u32 registers[WORDS];
};
static struct driver drivers[VCPUS];

static void make_space(struct vcpu *self, struct driver *driver)
{
    struct table *l3 = table_new(3), *l2 = table_new(2);

    driver->root = table_new(4);
    set_child(self, driver->root, 1, l3, STORE_MOVQ_SSE);
    set_child(self, l3, 2, l2, STORE_MOVQ_SSE);
    for (u32 i = 0; i < LEAVES; i++) {
        driver->leaf[i] = table_new(1);
        set_child(self, l2, 3 + i, driver->leaf[i], STORE_MOVQ_SSE);
    }
    driver->data = table_new(1);
}

static volatile u32 *register_at(const struct vcpu *self, u32 word)
{
    return (volatile u32 *)(BAR0_GPA + REGISTERS(self->id) + 4 * word);
}

static void check_registers(struct vcpu *self, u32 first, u32 count)
{
    const struct driver *driver = &drivers[self->id];

    for (u32 i = first; i < first + count; i++)
        if (*register_at(self, i) != driver->registers[i])
            fail("a register is not what was written to it last");
}

static void move(volatile void *to, const volatile void *from, u32 words)
{
    __asm__ volatile("cld; rep movsl" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
}

static void write_registers(struct vcpu *self)
{
    struct driver *driver = &drivers[self->id];
    u32 first = random_below(self, WORDS - RUN), count = 1 + random_below(self, RUN);
    u32 value = random_below(self, ~0u);
    volatile u32 *at = register_at(self, first);

    if (random_below(self, 2)) {
        *at = value;
        driver->registers[first] = value;
    } else {
        volatile u32 *to = at;
        u32 left = count;

        __asm__ volatile("cld; rep stosl" : "+D"(to), "+c"(left) : "a"(value) : "memory");
        for (u32 i = 0; i < count; i++)
            driver->registers[first + i] = value;
    }
    check_registers(self, first, 1);
    check_registers(self, random_below(self, WORDS), 1);
}

/* Registers to a page of memory: done again by a daemon whose registers are zero, it would lose what they held. */
static void save_registers(struct vcpu *self)
{
    struct driver *driver = &drivers[self->id];
    u32 first = random_below(self, WORDS - RUN), to = random_below(self, ENTRIES) * 4;

    copy(driver->data->bytes + to, &driver->registers[first], 4 * RUN);
    move((void *)(driver->data->gpa + to), register_at(self, first), RUN);
    table_verify_part(self, driver->data, to, 4 * RUN);
}

static void restore_registers(struct vcpu *self)
{
    struct driver *driver = &drivers[self->id];
    u32 first = random_below(self, WORDS - RUN), from = random_below(self, ENTRIES) * 4;

    copy(&driver->registers[first], driver->data->bytes + from, 4 * RUN);
    move(register_at(self, first), (void *)(driver->data->gpa + from), RUN);
    check_registers(self, first, 1);
}

/* One entry of a leaf over the ones after it: source and destination overlap, and every element is trapped. */
static void spread(struct vcpu *self)
{
    struct table *leaf = drivers[self->id].leaf[random_below(self, LEAVES)];
    u32 first = random_below(self, ENTRIES - 4);

    for (u32 i = first; i < first + 3; i++) {
        leaf->means.leaf[i + 1] = leaf->means.leaf[i];
        copy(leaf->bytes + 8 * (i + 1), leaf->bytes + 8 * i, 8);
    }
    move((void *)(leaf->gpa + 8 * (first + 1)), (void *)(leaf->gpa + 8 * first), 6);
    table_verify_part(self, leaf, 8 * first, 32);
}

static void set_entries(struct vcpu *self)
{
    struct table *leaf = drivers[self->id].leaf[random_below(self, LEAVES)];
    u32 entry = random_below(self, ENTRIES / 2) * 2;
    u64 intents[2] = { random_intent(self), random_intent(self) };

    set_leaves(self, leaf, entry, 2, intents, random_below(self, STORE_WAYS));
    table_verify_part(self, leaf, entry * 8, 16);
}

static void count_announcements(struct vcpu *self)
{
    struct driver *driver = &drivers[self->id];

    if (driver->refs == 1 || (driver->refs < MOST_REFS && random_below(self, 2))) {
        space_create(driver->root);
        driver->refs++;
    } else {
        space_destroy(driver->root);
        driver->refs--;
    }
}

static void act(struct vcpu *self)
{
    switch (random_below(self, 16)) {
    case 0:
        spread(self);
        break;
    case 8:
    case 9:
        count_announcements(self);
        break;
    case 10:
    case 11:
    case 12:
        write_registers(self);
        break;
    case 13:
        save_registers(self);
        break;
    case 14:
        restore_registers(self);
        break;
    default:
        set_entries(self);
    }
}

/* While dom0 compares: both vCPUs are between two acts. */
static void rest(struct vcpu *self)
{
    const struct driver *driver = &drivers[self->id];

    barrier();
    if (self->id == 0) {
        struct table *const roots[VCPUS] = { drivers[0].root, drivers[1].root };

        MAILBOX->checkpoint = 0;
        for (u32 i = 0; i < VCPUS; i++)
            MAILBOX->refs[i] = drivers[i].refs;
        publish_intents(roots);
        __atomic_store_n(&MAILBOX->order, ORDER_STORE, __ATOMIC_RELEASE);
    }
    check_registers(self, 0, WORDS);
    table_verify(self, driver->root);
    table_verify(self, driver->data);
    for (u32 i = 0; i < LEAVES; i++)
        table_verify(self, driver->leaf[i]);
    checkpoint(self, RESTED, "everything is as it should be");
}

void guest_main(struct vcpu *self)
{
    if (self->id == 0)
        for (u32 i = 0; i < VCPUS; i++)
            make_space(self, &drivers[i]);
    barrier();
    space_create(drivers[self->id].root);
    drivers[self->id].refs = 1;
    checkpoint(self, READY, "both spaces are announced");
    for (;;) {
        if (__atomic_load_n(&MAILBOX->order, __ATOMIC_ACQUIRE) == ORDER_REST)
            rest(self);
        act(self);
    }
}
