/* Entry of a PVH guest: 32-bit protected mode, flat segments, no paging. */
#include <xen/elfnote.h>

    .section .note.Xen, "a", @note
    .long 4, 4, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long _start

#define CR0_MP 0x2
#define CR0_EM 0x4
#define CR4_OSFXSR_OSXMMEXCPT 0x600

    .macro enable_sse
    movl %cr0, %eax
    andl $~CR0_EM, %eax
    orl $CR0_MP, %eax
    movl %eax, %cr0
    movl %cr4, %eax
    orl $CR4_OSFXSR_OSXMMEXCPT, %eax
    movl %eax, %cr4
    .endm

/* An HVM guest's SeaBIOS has QEMU's loader enter the same way (Multiboot 0.6.96). */
#define MULTIBOOT_MAGIC 0x1BADB002
    .section .multiboot, "a", @progbits
    .align 4
    .long MULTIBOOT_MAGIC, 0, -MULTIBOOT_MAGIC

    .text
    .code32
    .globl _start, second_start, stack_of_first
_start:
    cli
    cld
    movl $stack_of_first, %esp
    enable_sse
    call first_main
    ud2

/* Entry of the second vCPU, in the state that VCPUOP_initialise was given. */
second_start:
    cli
    cld
    movl $stack_of_second, %esp
    enable_sse
    call second_main
    ud2

    .bss
    .align 16
    .skip 16384
stack_of_first:
    .skip 16384
stack_of_second:
