/*
 * Two vCPUs, each with an address space of its own and some tables in common, store to them in every way, take tables out
 * and use their pages as plain memory, put them back, and end the spaces. tests/lab/scenarios/smoke.py watches.
 */
#include "space.h"

#define LEAVES 5u
#define ROUNDS 5u
#define HALF (ENTRIES / 2)

/* Checkpoints; tests/lab/scenarios/smoke.py has the same. */
enum { ANNOUNCED = 1, STORED, UNLINKED, REUSED, RELINKED, DESTROYED, FREED };

/*
 * One vCPU's space. The leaf tables are neighbours in memory, with a page that is never a table before and after them. The
 * spares are linked and unlinked.
 */
struct space {
    struct table *root, *l3_low, *l3_high, *l2_first, *l2_second, *l2_last, *leaf[LEAVES];
    struct table *before_leaves, *after_leaves;
    struct table *spare_leaf[2], *spare_l2[2], *spare_below[2], *spare_l3;
};

static struct space spaces[VCPUS];
static struct table *common_leaf, *common_l2, *common_below;

/*
 * A link that is stored byte by byte points to other frames before it is complete. All spares lie in the pool's first
 * 64 KiB, so that on the way from one to another no frame but these two is named, and on the way from nothing only frames
 * below 64 KiB, which nobody uses: the number of trapped stores stays exact.
 */
static void make_spares(struct vcpu *self, struct space *s)
{
    for (u32 i = 0; i < 2; i++) {
        s->spare_leaf[i] = table_new(1);
        s->spare_l2[i] = table_new(2);
        s->spare_below[i] = table_new(1);
        set_child(self, s->spare_l2[i], 17 + i, s->spare_below[i], STORE_MOVQ_SSE);
    }
    s->spare_l3 = table_new(3);
    set_child(self, s->spare_l3, 300, s->spare_l2[1], STORE_MOVQ_SSE);
}

static void fill(struct vcpu *self, struct table *leaf, u32 count)
{
    for (u32 i = 0; i < count; i++) {
        u64 intent = random_intent(self);

        set_leaves(self, leaf, random_below(self, ENTRIES), 1, &intent, STORE_MOVQ_MMX);
    }
}

/* Neighbouring entries that map neighbouring pages: what a driver writes most. */
static void fill_run(struct vcpu *self, struct table *leaf, u32 first, u32 count, enum store_way way)
{
    u64 intents[64];
    u64 start = (0x1000ull + random_below(self, 0x1000)) << 12;

    for (u32 i = 0; i < count; i++)
        intents[i] = (start + i * PAGE_SIZE) | INTENT_PRESENT | INTENT_WRITABLE | 3;
    set_leaves(self, leaf, first, count, intents, way);
}

static void make_space(struct vcpu *self, struct space *s)
{
    s->root = table_new(4);
    s->l3_low = table_new(3);
    s->l3_high = table_new(3);
    s->l2_first = table_new(2);
    s->l2_second = table_new(2);
    s->l2_last = table_new(2);
    s->before_leaves = table_new(1);
    for (u32 i = 0; i < LEAVES; i++)
        s->leaf[i] = table_new(1);
    s->after_leaves = table_new(1);
    for (u32 i = 0; i < LEAVES; i++) {
        fill(self, s->leaf[i], 40);
        fill_run(self, s->leaf[i], 64 * (i + 1), 64, STORE_REP_MOVSL);
    }
    set_child(self, s->root, 0, s->l3_low, STORE_MOVQ_SSE);
    set_child(self, s->root, 511, s->l3_high, STORE_MOVQ_SSE);
    set_child(self, s->l3_low, 0, s->l2_first, STORE_MOVQ_SSE);
    set_child(self, s->l3_low, 3, s->l2_second, STORE_MOVQ_SSE);
    set_child(self, s->l3_low, 511, common_l2, STORE_MOVQ_SSE);
    set_child(self, s->l3_high, 511, s->l2_last, STORE_MOVQ_SSE);
    set_child(self, s->l2_first, 0, s->leaf[0], STORE_MOVQ_SSE);
    set_child(self, s->l2_first, 1, s->leaf[1], STORE_MOVQ_SSE);
    set_child(self, s->l2_first, 511, s->leaf[2], STORE_MOVQ_SSE);
    set_child(self, s->l2_second, 7, s->leaf[3], STORE_MOVQ_SSE);
    set_child(self, s->l2_last, 511, s->leaf[4], STORE_MOVQ_SSE);
    set_child(self, s->l2_last, 0, common_leaf, STORE_MOVQ_SSE);
}

static void make_all(struct vcpu *self)
{
    if (self->id == 0) {
        for (u32 i = 0; i < VCPUS; i++)
            make_spares(self, &spaces[i]);
        common_leaf = table_new(1);
        common_below = table_new(1);
        common_l2 = table_new(2);
        set_child(self, common_l2, 5, common_below, STORE_MOVQ_SSE);
        fill(self, common_leaf, 40);
        fill(self, common_below, 40);
        for (u32 i = 0; i < VCPUS; i++)
            make_space(self, &spaces[i]);
    }
    barrier();
    space_create(spaces[self->id].root);
}

/* Each vCPU has half of the common table's entries, and all of its own tables'. */
static void store_leaves(struct vcpu *self, struct space *s, enum store_way way)
{
    u64 intents[8];
    u32 each = store_unit(way) == 16 ? 2 : 1;

    for (u32 round = 0; round < ROUNDS; round++) {
        u32 which = random_below(self, LEAVES + 1);
        struct table *leaf = which < LEAVES ? s->leaf[which] : common_leaf;
        u32 slots = which < LEAVES ? ENTRIES : HALF, base = which < LEAVES ? 0 : HALF * self->id;
        u32 count = each * (1 + random_below(self, 3));
        u32 first = base + random_below(self, (slots - count) / 2) * 2;

        for (u32 i = 0; i < count; i++)
            intents[i] = random_intent(self);
        set_leaves(self, leaf, first, count, intents, way);
    }
}

static void store_edges(struct vcpu *self, struct space *s)
{
    static const enum store_way ways[] = { STORE_MOVDQU, STORE_UNALIGNED_2, STORE_UNALIGNED_8, STORE_UNALIGNED_ODD };

    for (u32 i = 0; i < sizeof ways / sizeof *ways; i++) {
        u64 intents[2] = { random_intent(self), random_intent(self) };

        set_across(self, s->leaf[0], s->leaf[1], intents, ways[i]);
        set_across(self, s->before_leaves, s->leaf[0], intents, ways[i]);
        set_across(self, s->leaf[LEAVES - 1], s->after_leaves, intents, ways[i]);
    }
}

static void store_directories(struct vcpu *self, struct space *s, enum store_way way)
{
    struct table *a = s->spare_leaf[0], *b = s->spare_leaf[1];

    fill(self, a, 20);
    fill(self, b, 20);
    set_child(self, s->l2_first, 100 + way, a, way);
    fill(self, a, 2);
    set_child(self, s->l2_first, 100 + way, b, way);
    /* Nothing reaches it any more: from here on it is plain memory, until it is linked again. */
    table_scribble(self, a);
    table_verify(self, a);
    table_reset(a, 1);
    fill(self, a, 20);
    set_child(self, s->l2_second, 200 + way, a, way);
    fill(self, b, 2);
    set_child(self, s->l2_first, 100 + way, NULL, way);
    set_child(self, s->l2_second, 200 + way, NULL, way);

    set_child(self, s->l3_low, 10 + way, s->spare_l2[0], way);
    fill(self, s->spare_below[0], 2);
    set_child(self, s->l3_low, 10 + way, s->spare_l2[1], way);
    fill(self, s->spare_below[0], 2);
    set_child(self, s->root, 20 + way, s->spare_l3, way);
    fill(self, s->spare_below[1], 2);
    set_child(self, s->l3_low, 10 + way, NULL, way);
    set_child(self, s->root, 20 + way, NULL, way);
}

static void link_spares(struct vcpu *self, struct space *s)
{
    set_child(self, s->l2_first, 100, s->spare_leaf[0], STORE_CMPXCHG8B);
    set_child(self, s->l2_second, 200, s->spare_leaf[1], STORE_MOVQ_MMX);
    set_child(self, s->l3_low, 10, s->spare_l2[0], STORE_MOV_4);
    set_child(self, s->root, 20, s->spare_l3, STORE_MOVQ_SSE);
}

static void store_all(struct vcpu *self, struct space *s)
{
    for (enum store_way way = 0; way < STORE_WAYS; way++) {
        store_leaves(self, s, way);
        if (store_unit(way) <= 8)
            store_directories(self, s, way);
    }
    store_edges(self, s);
    clear_leaves(self, s->leaf[2], 150, 6, 0);
    clear_leaves(self, s->leaf[3], 200, 32, 1);
    fill_run(self, s->leaf[4], 100, 24, STORE_REP_MOVSL);
    fill_run(self, s->leaf[4], 128, 64, STORE_MOVQ_SSE);
    link_spares(self, s);
}

static void verify_all(struct vcpu *self, const struct space *s)
{
    const struct table *all[] = {
        s->root,           s->l3_low,         s->l3_high,    s->l2_first,   s->l2_second,    s->l2_last,
        s->leaf[0],        s->leaf[1],        s->leaf[2],    s->leaf[3],    s->leaf[4],      s->before_leaves,
        s->after_leaves,   s->spare_leaf[0],  s->spare_leaf[1], s->spare_l2[0], s->spare_l2[1], s->spare_below[0],
        s->spare_below[1], s->spare_l3,       common_leaf,   common_l2,     common_below,
    };

    barrier();
    for (u32 i = 0; i < sizeof all / sizeof *all; i++)
        table_verify(self, all[i]);
}

/* Pages that are used as plain memory while their tables are unlinked: three leaf tables, and one with a directory. */
static void unlink_some(struct vcpu *self, struct space *s)
{
    set_child(self, s->l2_first, 0, NULL, STORE_MOVQ_SSE);
    set_child(self, s->l2_first, 1, NULL, STORE_MOV_4);
    set_child(self, s->l2_first, 511, NULL, STORE_XCHG);
    set_child(self, s->l3_low, 3, NULL, STORE_MOVQ_MMX);
}

static void reuse(struct vcpu *self, struct space *s)
{
    struct table *plain[] = { s->leaf[0], s->leaf[1], s->leaf[2], s->l2_second };

    for (u32 round = 0; round < 10; round++)
        for (u32 i = 0; i < sizeof plain / sizeof *plain; i++)
            table_scribble(self, plain[i]);
    for (u32 i = 0; i < sizeof plain / sizeof *plain; i++)
        table_verify(self, plain[i]);
}

static void link_again(struct vcpu *self, struct space *s)
{
    for (u32 i = 0; i < 3; i++) {
        table_reset(s->leaf[i], 1);
        fill(self, s->leaf[i], 30);
    }
    table_reset(s->l2_second, 2);
    set_child(self, s->l2_second, 9, s->leaf[3], STORE_MOVQ_SSE);
    set_child(self, s->l2_first, 2, s->leaf[0], STORE_MOVQ_SSE);
    set_child(self, s->l2_first, 3, s->leaf[1], STORE_CMPXCHG);
    set_child(self, s->l2_first, 511, s->leaf[2], STORE_MOV_1);
    set_child(self, s->l3_low, 3, s->l2_second, STORE_MOVQ_MMX);
    fill(self, s->leaf[2], 10);
}

static void free_all(struct vcpu *self, struct space *s)
{
    struct table *plain[] = { s->root, s->l3_high, s->l2_last, s->leaf[4], s->spare_leaf[0], s->spare_l3 };

    for (u32 i = 0; i < sizeof plain / sizeof *plain; i++) {
        table_scribble(self, plain[i]);
        table_verify(self, plain[i]);
    }
}

static void publish(struct vcpu *self, int live)
{
    struct table *roots[VCPUS] = { live ? spaces[0].root : NULL, live ? spaces[1].root : NULL };

    barrier();
    if (self->id == 0)
        publish_intents(roots);
}

void guest_main(struct vcpu *self)
{
    struct space *s = &spaces[self->id];

    make_all(self);
    publish(self, 1);
    checkpoint(self, ANNOUNCED, "both spaces are announced");
    store_all(self, s);
    verify_all(self, s);
    publish(self, 1);
    checkpoint(self, STORED, "stored in every way");
    unlink_some(self, s);
    publish(self, 1);
    checkpoint(self, UNLINKED, "tables are unlinked");
    reuse(self, s);
    checkpoint(self, REUSED, "their pages were used as plain memory");
    link_again(self, s);
    verify_all(self, s);
    publish(self, 1);
    checkpoint(self, RELINKED, "they are tables again");
    space_destroy(s->root);
    publish(self, 0);
    checkpoint(self, DESTROYED, "both spaces are destroyed");
    free_all(self, s);
    checkpoint(self, FREED, "all pages are plain memory");
}
