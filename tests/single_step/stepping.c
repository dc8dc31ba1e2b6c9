/*
 * Kills its own process after the n-th instruction that is executed in a library's text, from the moment at which a vCPU
 * has a request in its slot.
 *
 * The first instruction of each of the library's functions that Python can call is replaced by a breakpoint. A call sets
 * the trap flag, so that every instruction from there on raises SIGTRAP; at the return to the caller the breakpoints are
 * set again. So only calls into the library are slow, and not the Python between them. SIGKILL in the handler leaves
 * memory as SIGKILL from outside would after the same instruction. Linux on x86-64 only.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define TRAP_FLAG 0x100
#define BREAKPOINT 0xCC
#define MOST_FUNCTIONS 1024
#define PAGE 4096u

static uintptr_t text_first, text_end;
static volatile uint8_t *functions[MOST_FUNCTIONS];
static uint8_t first_bytes[MOST_FUNCTIONS];
static unsigned nr_functions;
static const volatile uint8_t *slot_state; /* the byte whose low four bits are a slot's state; none: always on */
static int64_t left;
static uint64_t executed;
static uintptr_t stack_at_entry;
static int in_text;

static void set_breakpoints(void)
{
    for (unsigned i = 0; i < nr_functions; i++)
        *functions[i] = BREAKPOINT;
}

static void clear_breakpoints(void)
{
    for (unsigned i = 0; i < nr_functions; i++)
        *functions[i] = first_bytes[i];
}

static void on_trap(int number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    uintptr_t next = (uintptr_t)registers[REG_RIP];

    (void)number;
    if (info->si_code == SI_KERNEL) { /* a breakpoint; the instruction that it stands for comes next */
        clear_breakpoints();
        registers[REG_RIP] = (greg_t)(next - 1);
        registers[REG_EFL] |= TRAP_FLAG;
        stack_at_entry = (uintptr_t)registers[REG_RSP];
        in_text = 1;
        return;
    }
    if (in_text && (!slot_state || (*slot_state & 0xF))) {
        executed++;
        if (--left == 0)
            kill(getpid(), SIGKILL);
    }
    in_text = next >= text_first && next < text_end;
    if (!in_text && (uintptr_t)registers[REG_RSP] > stack_at_entry) {
        registers[REG_EFL] &= ~(greg_t)TRAP_FLAG;
        set_breakpoints();
    }
}

/* Returns 0, or -1 with errno. `after`: how many instructions; 0 for never, to count them. */
int step_arm(uintptr_t first, uintptr_t end, const uintptr_t *addresses, unsigned count, const uint8_t *state, int64_t after)
{
    struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_NODEFER };

    text_first = first;
    text_end = end;
    slot_state = state;
    left = after;
    nr_functions = count < MOST_FUNCTIONS ? count : MOST_FUNCTIONS;
    for (unsigned i = 0; i < nr_functions; i++) {
        uintptr_t page = addresses[i] & ~(uintptr_t)(PAGE - 1);

        if (mprotect((void *)page, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC))
            return -1;
        functions[i] = (volatile uint8_t *)addresses[i];
        first_bytes[i] = *functions[i];
    }
    if (sigaction(SIGTRAP, &action, NULL))
        return -1;
    set_breakpoints();
    return 0;
}

/* From here on nothing kills, and nothing is counted; between two calls of the library. Returns how many instructions there were. */
uint64_t step_never(void)
{
    left = 0;
    clear_breakpoints();
    return executed;
}
