/*
 * One vCPU has a tree of thousands of tables linked and unlinked, announced and ended, as dom0 orders. The other one
 * stores to one leaf table of its own meanwhile. tests/lab/scenarios/bounds.py watches how long the daemon keeps it waiting.
 */
#include "space.h"

/* The tree, above the pool: a root, a table of pointers, directories, and leaf tables that are not checked here. */
#define TREE_GPA 0x01000000u
#define DIRECTORIES 8u
#define ENTRY 3u /* present, writable */
#define STORES_BETWEEN_NAPS 64u

/* Checkpoints and orders; tests/lab/scenarios/bounds.py has the same. Orders are numbered, the kind is in the low bits. */
enum { ANNOUNCED = 1, FINISHED };
enum { LINK = 1, UNLINK, CREATE, DESTROY, KINDS };
#define ORDER_KIND 0xFu
#define ORDER_FINISH 0x80000000u

static struct table *root, *l3, *l2, *leaf;
static struct table tree = { .gpa = TREE_GPA, .level = 4 };

static u64 *page(u32 number)
{
    return (u64 *)(TREE_GPA + number * PAGE_SIZE);
}

static u64 entry(u32 number)
{
    return (TREE_GPA + number * PAGE_SIZE) | ENTRY;
}

/* With plain stores, before anybody knows of it. */
static void make_tree(void)
{
    for (u32 word = 0; word < (2 + DIRECTORIES + DIRECTORIES * ENTRIES) * ENTRIES; word++)
        page(0)[word] = 0;
    for (u32 n = 0; n < DIRECTORIES; n++) {
        page(1)[n] = entry(2 + n);
        for (u32 i = 0; i < ENTRIES; i++) {
            u32 table = 2 + DIRECTORIES + n * ENTRIES + i;

            page(2 + n)[i] = entry(table);
            page(table)[i] = entry(table);
        }
    }
}

static void link_tree(u64 to)
{
    store(STORE_MOVQ_SSE, page(0), &to, sizeof to);
}

static u32 order(void)
{
    return __atomic_load_n(&MAILBOX->order, __ATOMIC_ACQUIRE);
}

static void follow_orders(void)
{
    u32 done = 0, now;

    while (!((now = order()) & ORDER_FINISH)) {
        if (now == done) {
            doze();
            continue;
        }
        switch (now & ORDER_KIND) {
        case LINK: link_tree(entry(1)); break;
        case UNLINK: link_tree(0); break;
        case CREATE: space_create(&tree); break;
        case DESTROY: space_destroy(&tree); break;
        default: fail("an unknown order");
        }
        MAILBOX->wanted = done = now;
    }
}

/*
 * On one processor a vCPU that only stores is always found in the middle of a store, so its table can never be
 * unprotected, and a quiesce never ends (xengt_dm/traps/state.py). So this one does something else now and then.
 */
static void store_until_the_end(struct vcpu *self)
{
    for (u32 n = 1; !(order() & ORDER_FINISH); n++) {
        u64 intent = random_intent(self);

        set_leaves(self, leaf, random_below(self, ENTRIES), 1, &intent, STORE_MOVQ_SSE);
        if (n % STORES_BETWEEN_NAPS == 0)
            doze();
    }
    table_verify(self, leaf);
}

void guest_main(struct vcpu *self)
{
    if (self->id == 0) {
        make_tree();
        root = table_new(4);
        l3 = table_new(3);
        l2 = table_new(2);
        leaf = table_new(1);
        set_child(self, root, 0, l3, STORE_MOVQ_SSE);
        set_child(self, l3, 0, l2, STORE_MOVQ_SSE);
        set_child(self, l2, 0, leaf, STORE_MOVQ_SSE);
        space_create(root);
    }
    checkpoint(self, ANNOUNCED, "a small space is announced, and a large tree is made");
    if (self->id == 0)
        follow_orders();
    else
        store_until_the_end(self);
    barrier();
    checkpoint(self, FINISHED, "the tree was linked and unlinked");
}
