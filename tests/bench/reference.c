/* What the same work costs without the project. Compiled when the benchmarks start; see reference.py. */
#include <stdint.h>
#include <string.h>

enum { PAGE = 4096 };

/* Updates copies of pages: memcmp, and memcpy of those that differ. Returns how many differed. */
uint64_t sync_pages(char *copies, const char *pages, uint64_t count)
{
    uint64_t changed = 0;
    for (uint64_t i = 0; i < count; i++)
        if (memcmp(copies + i * PAGE, pages + i * PAGE, PAGE)) {
            memcpy(copies + i * PAGE, pages + i * PAGE, PAGE);
            changed++;
        }
    return changed;
}

/* One 64-bit word in each page, `step` words apart: what a guest changes in tables that it may store to. */
void touch_pages(uint64_t *words, uint64_t count, uint64_t step, uint64_t bits)
{
    for (uint64_t i = 0; i < count; i++)
        words[i * step] ^= bits;
}

/* Copies `count` pages of a guest's memory, each to a frame of its own. */
void copy_pages(char *memory, const uint32_t *to, const uint32_t *from, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        memcpy(memory + (uint64_t)to[i] * PAGE, memory + (uint64_t)from[i] * PAGE, PAGE);
}

/* struct ioreq, xen/include/public/hvm/ioreq.h; the state is in the low four bits of byte 30. */
struct ioreq {
    uint64_t addr, data;
    uint32_t count, size, vp_eport;
    uint16_t padding;
    uint8_t bits, type;
};

enum { READY = 1, RESP_READY = 3 };

/*
 * The least that a device model can do with stores that trap: poll the slot, perform the store, answer, notify; until
 * `stores` are done. Never sleeps.
 */
void serve_stores(struct ioreq *slot, char *memory, uint64_t stores, int (*notify)(void *, int), void *events, int port)
{
    while (stores) {
        if ((__atomic_load_n(&slot->bits, __ATOMIC_ACQUIRE) & 0x0f) != READY) {
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
            continue;
        }
        memcpy(memory + slot->addr, &slot->data, slot->size);
        __atomic_store_n(&slot->bits, (uint8_t)(slot->bits & 0xf0) | RESP_READY, __ATOMIC_RELEASE);
        notify(events, port);
        stores--;
    }
}
