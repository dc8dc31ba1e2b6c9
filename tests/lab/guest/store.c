#include "store.h"

/* Xen splits a store into pieces of at most 8 bytes. */
#define PIECES_OF_16 2

static const u8 units[STORE_WAYS] = {
    [STORE_MOV_1] = 1,      [STORE_MOV_2] = 2,      [STORE_MOV_4] = 4,     [STORE_MOVQ_MMX] = 8,
    [STORE_MOVQ_SSE] = 8,   [STORE_MOVDQU] = 16,    [STORE_MOVDQA] = 16,   [STORE_REP_MOVSB] = 1,
    [STORE_REP_MOVSL] = 4,  [STORE_XCHG] = 4,       [STORE_CMPXCHG] = 4,   [STORE_CMPXCHG8B] = 8,
    [STORE_XOR] = 4,        [STORE_UNALIGNED_4] = 8, [STORE_UNALIGNED_2] = 16, [STORE_UNALIGNED_8] = 16,
    [STORE_UNALIGNED_ODD] = 16,
};

u32 store_unit(enum store_way way)
{
    return units[way];
}

static void mov_1(u8 *to, const u8 *from)
{
    __asm__ volatile("movb %1, %0" : "=m"(*to) : "q"(*from) : "memory");
}

static void mov_4(u8 *to, const u8 *from)
{
    __asm__ volatile("movl %1, %0" : "=m"(*(u32 *)to) : "r"(*(const u32 *)from) : "memory");
}

static void mov_2(u8 *to, const u8 *from)
{
    __asm__ volatile("movw %1, %0" : "=m"(*(u16 *)to) : "r"(*(const u16 *)from) : "memory");
}

static void movq_mmx(u8 *to, const u8 *from)
{
    __asm__ volatile("movq %1, %%mm0; movq %%mm0, %0; emms" : "=m"(*(u64 *)to) : "m"(*(const u64 *)from) : "memory");
}

static void cmpxchg8b(u8 *to, const u8 *from)
{
    u64 old = *(u64 *)to, value = *(const u64 *)from;
    u8 done;

    __asm__ volatile("lock cmpxchg8b %0; setz %1"
                     : "+m"(*(u64 *)to), "=q"(done), "+A"(old)
                     : "b"((u32)value), "c"((u32)(value >> 32))
                     : "memory", "cc");
    if (!done)
        fail("cmpxchg8b found another value than it had just read");
}

static void cmpxchg(u8 *to, const u8 *from)
{
    u32 old = *(u32 *)to;
    u8 done;

    __asm__ volatile("lock cmpxchgl %3, %0; setz %1"
                     : "+m"(*(u32 *)to), "=q"(done), "+a"(old)
                     : "r"(*(const u32 *)from)
                     : "memory", "cc");
    if (!done)
        fail("cmpxchg found another value than it had just read");
}

static void xchg(u8 *to, const u8 *from)
{
    u32 before = *(u32 *)to, value = *(const u32 *)from;

    __asm__ volatile("xchgl %1, %0" : "+m"(*(u32 *)to), "+r"(value) : : "memory");
    if (value != before)
        fail("xchg gave another value than it had just read");
}

/* One unit; returns the number of writes. */
static u32 store_one(enum store_way way, u8 *to, const u8 *from)
{
    switch (way) {
    case STORE_MOV_1:
        mov_1(to, from);
        return 1;
    case STORE_MOV_2:
        mov_2(to, from);
        return 1;
    case STORE_MOV_4:
        mov_4(to, from);
        return 1;
    case STORE_MOVQ_MMX:
        movq_mmx(to, from);
        return 1;
    case STORE_MOVQ_SSE:
        __asm__ volatile("movq %1, %%xmm0; movq %%xmm0, %0" : "=m"(*(u64 *)to) : "m"(*(const u64 *)from) : "memory");
        return 1;
    case STORE_MOVDQU:
        __asm__ volatile("movdqu (%1), %%xmm0; movdqu %%xmm0, (%0)" : : "r"(to), "r"(from) : "memory");
        return PIECES_OF_16;
    case STORE_MOVDQA:
        __asm__ volatile("movdqu (%1), %%xmm0; movdqa %%xmm0, (%0)" : : "r"(to), "r"(from) : "memory");
        return PIECES_OF_16;
    case STORE_XCHG:
        xchg(to, from);
        return 1;
    case STORE_CMPXCHG:
        cmpxchg(to, from);
        return 1;
    case STORE_CMPXCHG8B:
        cmpxchg8b(to, from);
        return 1;
    case STORE_XOR: {
        u32 change = *(u32 *)to ^ *(const u32 *)from;

        __asm__ volatile("lock xorl %1, %0" : "+m"(*(u32 *)to) : "r"(change) : "memory", "cc");
        return 1;
    }
    case STORE_UNALIGNED_4:
        mov_1(to, from);
        mov_4(to + 1, from + 1);
        for (u32 i = 5; i < 8; i++)
            mov_1(to + i, from + i);
        return 5;
    case STORE_UNALIGNED_2:
        mov_4(to, from);
        mov_2(to + 4, from + 4);
        mov_4(to + 6, from + 6);
        mov_2(to + 10, from + 10);
        mov_4(to + 12, from + 12);
        return 5;
    case STORE_UNALIGNED_8:
        mov_4(to, from);
        movq_mmx(to + 4, from + 4);
        mov_4(to + 12, from + 12);
        return 3;
    case STORE_UNALIGNED_ODD:
        mov_1(to, from);
        mov_4(to + 1, from + 1);
        movq_mmx(to + 5, from + 5);
        for (u32 i = 13; i < 16; i++)
            mov_1(to + i, from + i);
        return 6;
    default:
        fail("no such way to store");
    }
}

u32 store(enum store_way way, void *to, const void *from, u32 bytes)
{
    u32 unit = units[way], count = bytes / unit, writes = 0;
    u8 *t = to;
    const u8 *f = from;

    switch (way) {
    case STORE_REP_MOVSB:
        __asm__ volatile("rep movsb" : "+D"(t), "+S"(f), "+c"(count) : : "memory");
        return bytes;
    case STORE_REP_MOVSL:
        __asm__ volatile("rep movsl" : "+D"(t), "+S"(f), "+c"(count) : : "memory");
        return bytes / unit;
    default:
        for (u32 i = 0; i < count; i++)
            writes += store_one(way, t + i * unit, f + i * unit);
        return writes;
    }
}

void store_across(enum store_way way, void *boundary, const void *from, u32 writes[2])
{
    /* Each part is cut into pieces of a power of two: 3 bytes are 2 and 1, 5 are 4 and 1. */
    static const u8 pieces[STORE_WAYS][2] = {
        [STORE_MOVDQU] = { 1, 1 },
        [STORE_UNALIGNED_2] = { 3, 3 },
        [STORE_UNALIGNED_8] = { 2, 2 },
        [STORE_UNALIGNED_ODD] = { 4, 5 },
    };

    store_one(way, (u8 *)boundary - 8, from);
    writes[0] = pieces[way][0];
    writes[1] = pieces[way][1];
}

u32 store_fill(void *to, u8 value, u32 bytes, int wide)
{
    u32 count = wide ? bytes / 4 : bytes, writes = count;

    if (wide)
        __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(value * 0x01010101u) : "memory");
    else
        __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
    return writes;
}
