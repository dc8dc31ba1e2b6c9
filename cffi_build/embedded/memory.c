#include "memory.h"

#include "state.h"

#include <string.h>

/* Guest memory is memory of two masters: each piece is one access of the widest aligned width. */
static uint32_t piece_of(uint64_t gpa, uint32_t size)
{
    uint32_t piece = 8;
    while (piece > size || (gpa & (piece - 1)))
        piece >>= 1;
    return piece;
}

void emb_ram_store(xd_emb *d, uint64_t gpa, const uint8_t *from, uint32_t size)
{
    while (size) {
        uint32_t piece = piece_of(gpa, size);
        void *to = d->ram + gpa;
        uint64_t value = 0;
        memcpy(&value, from, piece);
        switch (piece) {
        case 8: __atomic_store_n((uint64_t *)to, value, __ATOMIC_RELEASE); break;
        case 4: __atomic_store_n((uint32_t *)to, (uint32_t)value, __ATOMIC_RELEASE); break;
        case 2: __atomic_store_n((uint16_t *)to, (uint16_t)value, __ATOMIC_RELEASE); break;
        default: __atomic_store_n((uint8_t *)to, (uint8_t)value, __ATOMIC_RELEASE); break;
        }
        gpa += piece;
        from += piece;
        size -= piece;
    }
}

void emb_ram_load(const xd_emb *d, uint64_t gpa, uint8_t *to, uint32_t size)
{
    while (size) {
        uint32_t piece = piece_of(gpa, size);
        const void *from = d->ram + gpa;
        uint64_t value;
        switch (piece) {
        case 8: value = __atomic_load_n((const uint64_t *)from, __ATOMIC_ACQUIRE); break;
        case 4: value = __atomic_load_n((const uint32_t *)from, __ATOMIC_ACQUIRE); break;
        case 2: value = __atomic_load_n((const uint16_t *)from, __ATOMIC_ACQUIRE); break;
        default: value = __atomic_load_n((const uint8_t *)from, __ATOMIC_ACQUIRE); break;
        }
        memcpy(to, &value, piece);
        gpa += piece;
        to += piece;
        size -= piece;
    }
}

static int within(const xd_emb *d, uint64_t gpa, uint64_t size)
{
    uint64_t bytes = d->frames << EMB_SHIFT;
    return size <= UINT32_MAX && gpa <= bytes && size <= bytes - gpa;
}

int xd_emb_peek(const xd_emb *d, uint64_t gpa, void *to, uint64_t size)
{
    if (!within(d, gpa, size))
        return -EINVAL;
    emb_ram_load(d, gpa, to, (uint32_t)size);
    return 0;
}

int xd_emb_poke(xd_emb *d, uint64_t gpa, const void *from, uint64_t size)
{
    if (!within(d, gpa, size))
        return -EINVAL;
    emb_ram_store(d, gpa, from, (uint32_t)size);
    return 0;
}
