/*
 * Two vCPUs store to their tables without end, each store read back at once, until dom0 says that it is enough: it ends
 * the daemon in the middle. tests/lab/scenarios/stop.py watches, and adopt.py, which starts another daemon. service.py and
 * life.py have more done to the guest, and order it to store gently, so that a dom0 with other things to do gets on.
 */
#include "space.h"

#define LEAVES 3u
/* Between two stores of a guest that stores gently. A trap costs the emulated machine some milliseconds; with one nap, two
 * such guests leave little of the only processor to what the scenario does. */
#define NAPS 4u

/* Checkpoints and orders; tests/lab/scenarios/stop.py, adopt.py, service.py and life.py have the same. */
enum { ANNOUNCED = 1, FINISHED, RESUMED };
enum { ORDER_FINISH = 1, ORDER_SUSPEND, ORDER_ANNOUNCE, ORDER_GENTLY };

static struct {
    struct table *root, *l3, *l2, *leaf[LEAVES];
} spaces[VCPUS];

static void make_space(struct vcpu *self, u32 number)
{
    spaces[number].root = table_new(4);
    spaces[number].l3 = table_new(3);
    spaces[number].l2 = table_new(2);
    set_child(self, spaces[number].root, 1, spaces[number].l3, STORE_MOVQ_SSE);
    set_child(self, spaces[number].l3, 2, spaces[number].l2, STORE_MOVQ_SSE);
    for (u32 i = 0; i < LEAVES; i++) {
        spaces[number].leaf[i] = table_new(1);
        set_child(self, spaces[number].l2, 3 + i, spaces[number].leaf[i], STORE_MOVQ_SSE);
    }
}

/* Tell a device model that knows of no space: another one than heard of it first. */
static void announce_again(struct vcpu *self)
{
    barrier();
    space_create(spaces[self->id].root);
    if (self->id == 0)
        MAILBOX->order = ORDER_GENTLY;
    barrier();
}

static void verify_all(struct vcpu *self)
{
    table_verify(self, spaces[self->id].root);
    table_verify(self, spaces[self->id].l3);
    table_verify(self, spaces[self->id].l2);
    for (u32 i = 0; i < LEAVES; i++)
        table_verify(self, spaces[self->id].leaf[i]);
}

/* The restored guest finds every byte of its tables, and announces nothing until it is told to. */
static void be_saved(struct vcpu *self)
{
    barrier();
    if (self->id == 0) {
        MAILBOX->checkpoint = 0;
        MAILBOX->order = ORDER_GENTLY;
        suspend();
    }
    barrier();
    verify_all(self);
    checkpoint(self, RESUMED, "restored, with every table as it was");
}

/* A lost store shows as a page that differs from what it should hold. */
static void store_without_end(struct vcpu *self)
{
    struct table *const *leaf = spaces[self->id].leaf;
    u32 order;

    for (u32 turn = 0; (order = __atomic_load_n(&MAILBOX->order, __ATOMIC_ACQUIRE)) != ORDER_FINISH; turn++) {
        if (order == ORDER_SUSPEND)
            be_saved(self);
        else if (order == ORDER_ANNOUNCE)
            announce_again(self);
        else if (order == ORDER_GENTLY)
            for (u32 i = 0; i < NAPS; i++)
                doze();
        struct table *table = leaf[turn % LEAVES];
        enum store_way way = turn % STORE_WAYS;
        u32 entry = random_below(self, ENTRIES / 2) * 2;
        u64 intents[2] = { random_intent(self), random_intent(self) };

        set_leaves(self, table, entry, 2, intents, way);
        table_verify_part(self, table, entry * 8, 16);
    }
}

void guest_main(struct vcpu *self)
{
    if (self->id == 0)
        for (u32 i = 0; i < VCPUS; i++)
            make_space(self, i);
    barrier();
    space_create(spaces[self->id].root);
    checkpoint(self, ANNOUNCED, "both spaces are announced");
    store_without_end(self);
    verify_all(self);
    barrier();
    if (self->id == 0) {
        struct table *const roots[VCPUS] = { spaces[0].root, spaces[1].root };

        publish_intents(roots);
    }
    checkpoint(self, FINISHED, "all stores are where they should be");
}
