/*
 * Two vCPUs hammer the same leaf tables, each its own entries of them, until dom0 says that it is enough: one store after
 * the other to a table, single ones to many tables, rep stos, rep movs from registers of the device, and stores over the
 * end of a table. Each store has a value of its own, but for repeated ones, and is read back at once. Both submit at
 * moments that they draw. The second one now and then takes the directory of most tables out, or puts it back, in one
 * store. tests/lab/scenarios/relaxed.py watches.
 */
#include "space.h"

#define NEAR 6u
/* More tables than the daemon has guard ranges: unprotecting them all makes it drop guard ranges in between. */
#define FAR 64u
#define FAR_INDEX 5u
/* Turns between two submissions of a vCPU: below two to the power of a number below this. */
#define PAUSE_POWERS 10u
#define TURNS_A_FLIP 1500u
/* Entries that a vCPU stores to in a row. */
#define RUN 128u
/* A write there has the translations of an engine invalidated: a submission. */
#define TLB_INVALIDATE 0x4260u
/* Registers that no driver knows: they read as stored. 8 bytes for each vCPU. */
#define SPARE 0x40000u

/* Checkpoints and orders; tests/lab/scenarios/relaxed.py has the same. */
enum { ANNOUNCED = 1, FINISHED };
#define ORDER_FINISH 0x80000000u

static struct table *root, *l3, *l2_near, *l2_far, *leaf[NEAR + FAR];

static void make_space(struct vcpu *self)
{
    root = table_new(4);
    l3 = table_new(3);
    l2_near = table_new(2);
    l2_far = table_new(2);
    set_child(self, root, 1, l3, STORE_MOVQ_SSE);
    set_child(self, l3, 2, l2_near, STORE_MOVQ_SSE);
    set_child(self, l3, FAR_INDEX, l2_far, STORE_MOVQ_SSE);
    for (u32 i = 0; i < NEAR + FAR; i++) {
        leaf[i] = table_new(1);
        set_child(self, i < NEAR ? l2_near : l2_far, 3 + i, leaf[i], STORE_MOVQ_SSE);
    }
}

static u32 order(void)
{
    return __atomic_load_n(&MAILBOX->order, __ATOMIC_ACQUIRE);
}

static void submit(struct vcpu *self)
{
    static u32 pause[VCPUS];

    if (pause[self->id]) {
        pause[self->id]--;
        return;
    }
    register_write(TLB_INVALIDATE, 1);
    __atomic_fetch_add(&MAILBOX->wanted, 1, __ATOMIC_RELAXED);
    pause[self->id] = random_below(self, 1u << random_below(self, PAUSE_POWERS));
}

/*
 * Entries are shared out by pairs, because that is what the widest store takes. The first and the last pair of a table are
 * for stores over its ends, which the second vCPU makes.
 */
static u32 own_pair(struct vcpu *self)
{
    return (random_below(self, ENTRIES / 2 / VCPUS - 2) + 1) * 2 * VCPUS + 2 * self->id;
}

static void one_store(struct vcpu *self, struct table *table)
{
    u32 entry = own_pair(self);
    u64 intents[2] = { random_intent(self), random_intent(self) };

    set_leaves(self, table, entry, 2, intents, random_below(self, STORE_WAYS));
    table_verify_part(self, table, entry * 8, 16);
}

/* One store after the other to a table; half of the runs with one value. */
static void many_stores(struct vcpu *self, struct table *table)
{
    u32 same = random_below(self, 2), entry = own_pair(self);
    u64 intents[2] = { random_intent(self), random_intent(self) };

    for (u32 i = 0; i < RUN && entry < ENTRIES - 2; i++, entry += 2 * VCPUS) {
        if (!same)
            intents[0] = intents[1] = random_intent(self);
        set_leaves(self, table, entry, 2, intents, STORE_MOVQ_SSE);
        table_verify_part(self, table, entry * 8, 16);
    }
}

static void store_over_the_end(struct vcpu *self, u32 index)
{
    static const enum store_way ways[] = { STORE_MOVDQU, STORE_UNALIGNED_2, STORE_UNALIGNED_8, STORE_UNALIGNED_ODD };
    u64 intents[2] = { random_intent(self), random_intent(self) };

    set_across(self, leaf[index], leaf[index + 1], intents, ways[random_below(self, 4)]);
    table_verify_part(self, leaf[index], PAGE_SIZE - 8, 8);
    table_verify_part(self, leaf[index + 1], 0, 8);
}

static void hammer(struct vcpu *self)
{
    int far_is_in = 1;

    for (u32 turn = 0; !(order() & ORDER_FINISH); turn++) {
        u32 index = random_below(self, turn % 2 ? NEAR : NEAR + FAR), entry = own_pair(self);

        switch (random_below(self, 8)) {
        case 0:
            many_stores(self, leaf[index]);
            break;
        case 1:
            clear_leaves(self, leaf[index], entry, 2, (int)random_below(self, 2));
            table_verify_part(self, leaf[index], entry * 8, 16);
            break;
        case 2:
            set_from_registers(self, leaf[index], entry, random_intent(self), SPARE + 8 * self->id);
            table_verify_part(self, leaf[index], entry * 8, 8);
            break;
        case 3:
            if (self->id != 0 && index + 1 < NEAR + FAR)
                store_over_the_end(self, index);
            break;
        default:
            one_store(self, leaf[index]);
        }
        submit(self);
        if (self->id != 0 && !random_below(self, TURNS_A_FLIP))
            set_child(self, l3, FAR_INDEX, (far_is_in = !far_is_in) ? l2_far : NULL, STORE_MOVQ_SSE);
    }
    if (!far_is_in)
        set_child(self, l3, FAR_INDEX, l2_far, STORE_MOVQ_SSE);
}

void guest_main(struct vcpu *self)
{
    if (self->id == 0) {
        make_space(self);
        space_create(root);
    }
    checkpoint(self, ANNOUNCED, "the space is announced");
    hammer(self);
    barrier();
    if (self->id == 0) {
        struct table *const live[VCPUS] = { root };

        table_verify(self, root);
        table_verify(self, l3);
        table_verify(self, l2_near);
        table_verify(self, l2_far);
        for (u32 i = 0; i < NEAR + FAR; i++)
            table_verify(self, leaf[i]);
        publish_intents(live);
    }
    checkpoint(self, FINISHED, "all stores are where they should be");
}
