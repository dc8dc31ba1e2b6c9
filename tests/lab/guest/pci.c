/*
 * The vCPU of an HVM guest uses the PCI function of a whole GPU: it gives it addresses as hvmloader does, looks for sizes
 * as Linux does, moves it, switches decoding off and on again, accesses registers one at a time and many at once; and
 * stores to page tables, as the programs do that have BAR0 at a fixed address. tests/lab/scenarios/pci.py watches.
 */
#include "space.h"

#define LEAVES 4u

/* Checkpoints; tests/lab/scenarios/pci.py has the same. */
enum { MOVED = 1, ADOPTED, FINISHED };

#define CONFIG_ADDRESS 0xCF8
#define CONFIG_DATA 0xCFC
#define FUNCTION 0x80001000u /* 00:02.0 */
#define PCI_COMMAND 0x04u
#define COMMAND_MEMORY 2u
#define COMMAND_MASTER 4u
#define PCI_BAR0 0x10u
#define PCI_BAR2 0x18u
#define SKYLAKE 0x19128086u
#define BAR_SIZE 0x01000000u

/* Where no RAM and no device of QEMU's is: where the BARs are at first, and where BAR2 is moved. */
#define FIRST_BAR0_GPA 0xF4000000u
#define FIRST_BAR2_GPA 0xF5000000u
#define BAR2_GPA 0xF6000000u
#define MAGIC_LOW 0x76544776u /* "vGTv" */
#define HWS_PGA 0x2080u
#define MOCS 0xC800u
#define MOCS_COUNT 64u
#define FUSES 0x9120u
#define FUSES_VALUE 0x02800000u
#define RESET 0x941Cu

static struct table *root, *leaf[LEAVES];
static u32 room[MOCS_COUNT];

static u32 config_read(u32 offset)
{
    u32 value;

    __asm__ volatile("outl %0, %1" : : "a"(FUNCTION | offset), "Nd"((u16)CONFIG_ADDRESS));
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"((u16)CONFIG_DATA));
    return value;
}

static void config_write(u32 offset, u32 value)
{
    __asm__ volatile("outl %0, %1" : : "a"(FUNCTION | offset), "Nd"((u16)CONFIG_ADDRESS));
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"((u16)CONFIG_DATA));
}

static u32 at(u32 gpa)
{
    return *(volatile u32 *)gpa;
}

static void expect(int right, const char *what)
{
    if (!right)
        fail(what);
}

/* As hvmloader gives a function its addresses; there is no firmware where Xen itself loads this program. */
static void place(void)
{
    expect(config_read(0) == SKYLAKE, "00:02.0 is no Skylake");
    expect((config_read(0x08) >> 8) == 0x030000, "the function is of another class");
    config_write(PCI_COMMAND, 0);
    expect((config_read(PCI_BAR0) & 0xF) == 0x4 && (config_read(PCI_BAR2) & 0xF) == 0xC, "BARs of other kinds");
    config_write(PCI_BAR0, FIRST_BAR0_GPA | 0x4);
    config_write(PCI_BAR0 + 4, 0);
    config_write(PCI_BAR2, FIRST_BAR2_GPA | 0xC);
    config_write(PCI_BAR2 + 4, 0);
    expect(at(FIRST_BAR0_GPA + FUSES) == ~0u, "BAR0 answers before it is enabled");
    config_write(PCI_COMMAND, COMMAND_MEMORY | COMMAND_MASTER);
    expect(at(FIRST_BAR0_GPA + PVINFO) == MAGIC_LOW, "BAR0 is not where it was placed");
}

/* As Linux finds sizes: decoding is off meanwhile, and the address stays. */
static void find_sizes(u32 bar0)
{
    u32 command = config_read(PCI_COMMAND);

    config_write(PCI_COMMAND, command & ~COMMAND_MEMORY & 0xFFFF);
    for (u32 bar = PCI_BAR0; bar <= PCI_BAR2; bar += 8) {
        u32 low = config_read(bar);

        config_write(bar, ~0u);
        expect((config_read(bar) & ~0xFu) == 0 - BAR_SIZE, "a BAR has another size than 16 MiB");
        config_write(bar, low);
        config_write(bar + 4, ~0u);
        expect(config_read(bar + 4) == ~0u, "a BAR has not 64 bits");
        config_write(bar + 4, 0);
    }
    expect(at(bar0 + FUSES) == ~0u, "BAR0 answers with decoding off");
    config_write(PCI_COMMAND, command & 0xFFFF);
    expect(at(bar0 + FUSES) == FUSES_VALUE, "BAR0 does not answer with decoding on again");
}

static void move(u32 bar0)
{
    *(volatile u32 *)(bar0 + HWS_PGA) = 0x12345000;
    config_write(PCI_BAR0, BAR0_GPA);
    config_write(PCI_BAR2, BAR2_GPA);
    expect(register_read(PVINFO) == MAGIC_LOW, "BAR0 is not where the guest has moved it");
    expect(register_read(HWS_PGA) == 0x12345000, "a register has lost its value by the move");
    expect(at(bar0 + FUSES) == ~0u, "BAR0 answers where it was");
    expect(at(BAR2_GPA) != ~0u, "BAR2 is not where the guest has moved it");
}

/* Many accesses of one instruction, to the device and from it. */
static void repeat(void)
{
    u32 count = MOCS_COUNT, value = 0x0BADCAFE;
    void *to = (void *)(BAR0_GPA + MOCS), *from = (void *)(BAR0_GPA + MOCS);

    __asm__ volatile("rep stosl" : "+c"(count), "+D"(to) : "a"(value) : "memory");
    count = MOCS_COUNT;
    to = room;
    __asm__ volatile("rep movsl" : "+c"(count), "+D"(to), "+S"(from) : : "memory");
    for (u32 i = 0; i < MOCS_COUNT; i++)
        expect(room[i] == value && register_read(MOCS + 4 * i) == value, "rep stos or rep movs has lost an element");
}

static void make_space(struct vcpu *self)
{
    struct table *l3 = table_new(3), *l2 = table_new(2);

    root = table_new(4);
    set_child(self, root, 1, l3, STORE_MOVQ_SSE);
    set_child(self, l3, 2, l2, STORE_MOVQ_SSE);
    for (u32 i = 0; i < LEAVES; i++) {
        leaf[i] = table_new(1);
        set_child(self, l2, 3 * i, leaf[i], STORE_MOVQ_SSE);
    }
    space_create(root);
}

static void store_to_leaves(struct vcpu *self)
{
    for (u32 i = 0; i < LEAVES; i++) {
        u32 entry = random_below(self, ENTRIES / 2) * 2;
        u64 intents[2] = { random_intent(self), random_intent(self) };

        set_leaves(self, leaf[i], entry, 2, intents, STORE_MOVQ_SSE);
        table_verify_part(self, leaf[i], entry * 8, 16);
    }
}

/* A driver that comes after one that said nothing: it looks, resets, and finds no space. */
static void come_again(void)
{
    expect(register_read(PVINFO) == MAGIC_LOW, "PVINFO has no magic");
    register_write(RESET, 1);
    expect(register_read(RESET) == 0, "a reset is not over");
    expect(register_read(HWS_PGA) == 0, "a reset has left a register");
}

void guest_main(struct vcpu *self)
{
    place();
    find_sizes(FIRST_BAR0_GPA);
    move(FIRST_BAR0_GPA);
    repeat();
    make_space(self);
    store_to_leaves(self);
    checkpoint(self, MOVED, "the function is found, moved and used");
    expect(register_read(HWS_PGA) == 0x12345000, "a register has lost its value by the death of the daemon");
    config_write(PCI_COMMAND, COMMAND_MASTER);
    expect(register_read(FUSES) == ~0u, "BAR0 answers with decoding off");
    config_write(PCI_COMMAND, COMMAND_MASTER | COMMAND_MEMORY);
    store_to_leaves(self);
    for (u32 i = 0; i < LEAVES; i++)
        table_verify(self, leaf[i]);
    checkpoint(self, ADOPTED, "a successor serves it");
    come_again();
    checkpoint(self, FINISHED, "another driver has reset it");
}
