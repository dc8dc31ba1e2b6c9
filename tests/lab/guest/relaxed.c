/*
 * Two vCPUs hammer the same leaf tables, each its own entries of them, until dom0 says that it is enough. Each store has a
 * value of its own and is read back at once. The second vCPU also asks for submissions, at moments that it draws, and now
 * and then takes the directory of most tables out, or puts it back, in one store. tests/lab/scenarios/relaxed.py watches.
 */
#include "space.h"

#define NEAR 6u
/* More tables than the daemon has guard ranges: unprotecting them all makes it drop guard ranges in between. */
#define FAR 64u
#define FAR_INDEX 5u
/* Turns between two submissions: below two to the power of a number below this. */
#define PAUSE_POWERS 13u
#define TURNS_A_FLIP 1500u

/* Checkpoints and orders; tests/lab/scenarios/relaxed.py has the same. Below ORDER_FINISH: submissions made so far. */
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

static void ask_for_submissions(struct vcpu *self)
{
    static u32 asked, pause;

    if (pause) {
        pause--;
        return;
    }
    if (order() != asked)
        return;
    MAILBOX->wanted = ++asked;
    pause = random_below(self, 1u << random_below(self, PAUSE_POWERS));
}

/* Entries are shared out by pairs, because that is what the widest store takes. */
static void hammer(struct vcpu *self)
{
    int far_is_in = 1;

    for (u32 turn = 0; !(order() & ORDER_FINISH); turn++) {
        struct table *table = leaf[random_below(self, turn % 2 ? NEAR : NEAR + FAR)];
        u32 entry = random_below(self, ENTRIES / 2 / VCPUS) * 2 * VCPUS + 2 * self->id;
        u64 intents[2] = { random_intent(self), random_intent(self) };

        set_leaves(self, table, entry, 2, intents, random_below(self, STORE_WAYS));
        table_verify_part(self, table, entry * 8, 16);
        if (self->id == 0)
            continue;
        ask_for_submissions(self);
        if (!random_below(self, TURNS_A_FLIP))
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
