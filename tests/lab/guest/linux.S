/*
 * The first sector of a Linux guest's disk: dom0 has written the kernel, its initial root, page tables and its boot
 * parameters into memory (tests/lab/dom0/linux.py). The kernel is entered as its own decompressor would do it.
 */

/* The same as in tests/lab/dom0/linux.py. */
#define BOOT_PARAMS 0x06000000
#define PAGE_TABLES 0x06002000
#define CODE32_START 0x214 /* where the decompressed kernel is entered, with 64 bits */

#define CR0_PE 0x1
#define CR0_PG 0x80000000
#define CR4_PAE 0x20
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define FIRST_CS 0x08
#define BOOT_CS 0x10
#define BOOT_DS 0x18
#define SIGNATURE 0xaa55

    .text
    .code16
    .globl _start
_start:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl gdt_descriptor
    movl %cr0, %eax
    orl $CR0_PE, %eax
    movl %eax, %cr0
    ljmpl $FIRST_CS, $protected_mode

    .code32
protected_mode:
    movl $BOOT_DS, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $PAGE_TABLES, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $CR4_PAE, %eax
    movl %eax, %cr4
    movl $MSR_EFER, %ecx
    rdmsr
    orl $EFER_LME, %eax
    wrmsr
    movl %cr0, %eax
    orl $CR0_PG, %eax
    movl %eax, %cr0
    ljmp $BOOT_CS, $long_mode

    .code64
long_mode:
    movl $BOOT_PARAMS, %esi
    movl CODE32_START(%rsi), %eax
    jmp *%rax

    .align 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_descriptor:
    .word . - gdt - 1
    .long gdt

    .org 510
    .word SIGNATURE
