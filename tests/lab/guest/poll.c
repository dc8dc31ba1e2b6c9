/*
 * The vCPU of an HVM guest writes and reads registers of a device of QEMU's without end, and checks each value, while dom0
 * kills our daemon and starts others. It stores to its tables only when it is told to, because it would wait for a daemon
 * that is dead. tests/lab/scenarios/poll.py watches.
 */
#include "space.h"

#define LEAVES 8u

/* Checkpoints and orders; tests/lab/scenarios/poll.py has the same. */
enum { READY = 1, FINISHED };
enum { ORDER_POLL, ORDER_FINISH, ORDER_STORE };

#define CONFIG_ADDRESS 0xCF8
#define CONFIG_DATA 0xCFC
#define CONFIG_ENABLE 0x80000000u
#define PCI_DEVICES 32u
#define PCI_COMMAND 0x04u
#define COMMAND_MEMORY 2u
#define PCI_BAR0 0x10u

/* QEMU's SD host controller: -device sdhci-pci, hw/sd/sdhci-pci.c. Registers as in the SD Host Controller specification. */
#define SDHCI_ID 0x00071B36u
#define SDHCI_ARGUMENT 0x08u     /* holds what was written to it */
#define SDHCI_CAPABILITIES 0x40u /* constant */

/* Below our BAR0, where neither RAM nor another device is. */
#define DEVICE_GPA 0xF4000000u

static struct table *root, *leaf[LEAVES];

static void choose(u32 number, u32 offset)
{
    __asm__ volatile("outl %0, %1" : : "a"(CONFIG_ENABLE | number << 11 | offset), "Nd"((u16)CONFIG_ADDRESS));
}

static u32 config_read(u32 number, u32 offset)
{
    u32 value;

    choose(number, offset);
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"((u16)CONFIG_DATA));
    return value;
}

static void config_write(u32 number, u32 offset, u32 value)
{
    choose(number, offset);
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"((u16)CONFIG_DATA));
}

/* Nothing has given it an address yet: the firmware leaves that to whoever uses a device, or there is no firmware. */
static void find_device(void)
{
    for (u32 number = 0; number < PCI_DEVICES; number++)
        if (config_read(number, 0) == SDHCI_ID) {
            config_write(number, PCI_BAR0, DEVICE_GPA);
            config_write(number, PCI_COMMAND, config_read(number, PCI_COMMAND) | COMMAND_MEMORY);
            return;
        }
    fail("there is no device of QEMU's");
}

static u32 device_read(u32 offset)
{
    return *(volatile u32 *)(DEVICE_GPA + offset);
}

static void device_write(u32 offset, u32 value)
{
    *(volatile u32 *)(DEVICE_GPA + offset) = value;
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
}

/* Have the daemon protect tables, and unsync some: what its successor finds. */
static void store_to_leaves(struct vcpu *self)
{
    space_create(root);
    for (u32 i = 0; i < LEAVES; i++) {
        u32 entry = random_below(self, ENTRIES / 2) * 2;
        u64 intents[2] = { random_intent(self), random_intent(self) };

        set_leaves(self, leaf[i], entry, 2, intents, STORE_MOVQ_SSE);
        table_verify_part(self, leaf[i], entry * 8, 16);
    }
}

void guest_main(struct vcpu *self)
{
    u32 order, capabilities;

    find_device();
    capabilities = device_read(SDHCI_CAPABILITIES);
    if (capabilities == 0 || capabilities == ~0u)
        fail("QEMU's device does not answer");
    make_space(self);
    store_to_leaves(self);
    checkpoint(self, READY, "QEMU's device is found, and a space announced");
    for (u32 turn = 1; (order = __atomic_load_n(&MAILBOX->order, __ATOMIC_ACQUIRE)) != ORDER_FINISH; turn++) {
        if (order == ORDER_STORE) {
            store_to_leaves(self);
            __atomic_store_n(&MAILBOX->order, ORDER_POLL, __ATOMIC_RELEASE);
        }
        device_write(SDHCI_ARGUMENT, turn);
        if (device_read(SDHCI_ARGUMENT) != turn)
            fail("QEMU's device does not hold what was written to it");
        if (device_read(SDHCI_CAPABILITIES) != capabilities)
            fail("a register of QEMU's device has another value than it had");
        __atomic_store_n(&MAILBOX->progress[0], turn, __ATOMIC_RELEASE);
    }
    for (u32 i = 0; i < LEAVES; i++)
        table_verify(self, leaf[i]);
    checkpoint(self, FINISHED, "every value was right");
}
