/*
 * Entry of a PVH guest in 64-bit mode: for programs that need 8-byte stores of general registers and rep stosq.
 * All of the first 4 GiB is mapped where it is, in pages of 2 MiB.
 */
#include <xen/elfnote.h>

    .section .note.Xen, "a", @note
    .long 4, 4, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long _start

#define CR0_PG_PE 0x80000001
#define CR0_MP 0x2
#define CR0_EM 0x4
#define CR4_PAE 0x20
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define PRESENT_WRITABLE 0x3
#define LARGE 0x80
#define CODE 8
#define DATA 16

    .text
    .code32
    .globl _start
_start:
    cli
    cld
    movl $top_table, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $CR4_PAE, %eax
    movl %eax, %cr4
    movl $MSR_EFER, %ecx
    rdmsr
    orl $EFER_LME, %eax
    wrmsr
    movl %cr0, %eax
    andl $~CR0_EM, %eax
    orl $(CR0_PG_PE | CR0_MP), %eax
    movl %eax, %cr0
    lgdt segments_limit
    ljmp $CODE, $in_64_bits

    .code64
in_64_bits:
    movw $DATA, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movq $stack_end, %rsp
    call first_main
    ud2

    .data
    .align 8
segments:
    .quad 0
    .quad 0x00af9a000000ffff /* 64-bit code, ring 0 */
    .quad 0x00cf92000000ffff /* data, ring 0 */
segments_limit:
    .word . - segments - 1
    .long segments

    .align 4096
top_table:
    .quad next_table + PRESENT_WRITABLE
    .fill 511, 8, 0
next_table:
    .set at, 0
    .rept 4
    .quad directories + at + PRESENT_WRITABLE
    .set at, at + 4096
    .endr
    .fill 508, 8, 0
directories:
    .set at, 0
    .rept 4 * 512
    .quad at + PRESENT_WRITABLE + LARGE
    .set at, at + 0x200000
    .endr

    .bss
    .align 16
    .skip 16384
stack_end:
