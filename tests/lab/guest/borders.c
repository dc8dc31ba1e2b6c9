/*
 * Two vCPUs call functions over the ends of pages, with values in all registers that must not change meanwhile, and store
 * to pages whose types dom0 changes. There is no device: what comes of a store to a read-only page does not matter.
 * tests/lab/scenarios/borders.py watches.
 */
#include "lab.h"

/* Checkpoints and orders; tests/lab/scenarios/borders.py has the same. */
enum { READY = 1, FINISHED };
#define ORDER_FINISH 0x80000000u
#define PAGES 64u

/*
 * Returns 0, or the number of the first thing that was not as it must be. Each call has 1 to 4 of its 5 bytes in front of
 * a page's end. What is called compares its return address with the one that it must have, and adds to %eax.
 */
u32 calls_over_ends(u32 seed);
__asm__(".section .text.calls, \"ax\", @progbits\n"
        ".macro over_end number, bytes\n"
        "    .balign 4096\n"
        "    .skip 4096 - 1 - \\bytes\n"
        "caller\\number: nop\n"
        "    call called\\number\n"
        "back\\number: ret\n"
        "    .skip 512\n"
        "called\\number:\n"
        "    cmpl $back\\number, (%esp)\n"
        "    jne 1f\n"
        "    addl $\\number, %eax\n"
        "    ret\n"
        "1:  movl $0x80000000 + \\number, %edx\n"
        "    ret\n"
        ".endm\n"
        "    over_end 1, 1\n"
        "    over_end 2, 2\n"
        "    over_end 3, 3\n"
        "    over_end 4, 4\n"
        "    .balign 4096\n"
        "calls_over_ends:\n"
        "    pushl %ebp\n pushl %ebx\n pushl %esi\n pushl %edi\n"
        "    movl 20(%esp), %eax\n"
        "    leal 1(%eax), %ebx\n leal 2(%eax), %esi\n leal 3(%eax), %edi\n leal 4(%eax), %ebp\n leal 5(%eax), %edx\n"
        "    movl $64, %ecx\n"
        "2:  call caller1\n call caller2\n call caller3\n call caller4\n"
        "    decl %ecx\n jnz 2b\n"
        "    subl $640, %eax\n"
        "    subl %eax, %ebx\n subl %eax, %esi\n subl %eax, %edi\n subl %eax, %ebp\n subl %eax, %edx\n"
        "    cmpl 20(%esp), %eax\n movl $1, %eax\n jne 3f\n"
        "    cmpl $1, %ebx\n movl $2, %eax\n jne 3f\n"
        "    cmpl $2, %esi\n movl $3, %eax\n jne 3f\n"
        "    cmpl $3, %edi\n movl $4, %eax\n jne 3f\n"
        "    cmpl $4, %ebp\n movl $5, %eax\n jne 3f\n"
        "    cmpl $5, %edx\n movl $6, %eax\n jne 3f\n"
        "    xorl %eax, %eax\n"
        "3:  popl %edi\n popl %esi\n popl %ebx\n popl %ebp\n"
        "    ret\n"
        ".text\n");

static void store_to(struct vcpu *self)
{
    static const u64 source[16];
    u32 to = POOL_GPA + random_below(self, PAGES) * PAGE_SIZE + random_below(self, PAGE_SIZE / 8 - 16) * 8;
    u32 from = (u32)source, words = 1 + random_below(self, 16), bytes = 4 * words, end = to + bytes, value = random_below(self, 100);

    switch (random_below(self, 4)) {
    case 0:
        __asm__ volatile("rep movsl" : "+c"(words), "+S"(from), "+D"(to) : : "memory");
        if (to != end || words || from != (u32)source + bytes)
            fail("rep movs ended with other registers");
        break;
    case 1:
        __asm__ volatile("rep stosl" : "+c"(words), "+D"(to) : "a"(value) : "memory");
        if (to != end || words)
            fail("rep stos ended with other registers");
        break;
    case 2:
        __asm__ volatile("movq %1, %%xmm0; movq %%xmm0, %0" : "=m"(*(u64 *)to) : "m"(source[0]) : "memory");
        break;
    default:
        *(volatile u32 *)to = value;
    }
    self->stores++;
}

/* The failure, with what was found in hexadecimal digits. */
static __attribute__((noreturn)) void wrong(u32 what)
{
    static char text[] = "after calls over the ends of pages something else was wrong: 00000000";

    for (u32 i = 0; i < 8; i++)
        text[sizeof text - 2 - i] = "0123456789abcdef"[what >> (4 * i) & 0xF];
    fail(text);
}

void guest_main(struct vcpu *self)
{
    checkpoint(self, READY, "both vCPUs are there");
    while (!(__atomic_load_n(&MAILBOX->order, __ATOMIC_ACQUIRE) & ORDER_FINISH)) {
        u32 what = calls_over_ends(random_below(self, 0x40000000));

        if (what)
            wrong(what);
        store_to(self);
        MAILBOX->progress[self->id] = self->stores;
    }
    checkpoint(self, FINISHED, "all calls were as they should be");
}
