/* The register file: loads, stores, copies and arithmetic, with values that the client computes. */
#include "batch.h"
#include "checks.h"
#include "random.h"

#include <stdio.h>

#define GPR(n) (0x600u + 8u * (n))
#define SEED 0x9e3779b97f4a7c15ull
#define ROUNDS 6u

/* An instruction of the ALU (Skylake PRM volume 2b, MI_MATH). */
#define ALU(opcode, a, b) ((uint32_t)(opcode) << 20 | (uint32_t)(a) << 10 | (uint32_t)(b))
enum { LOAD = 0x080, LOADINV = 0x480, LOAD0 = 0x081, LOAD1 = 0x481, STORE = 0x180, STOREINV = 0x580 };
enum { ADD = 0x100, SUB, AND, OR, XOR };
enum { SRCA = 0x20, SRCB = 0x21, ACCU = 0x31, ZF = 0x32, CF = 0x33 };
#define OPERATIONS 5u

static uint64_t computed(unsigned operation, uint64_t a, uint64_t b, bool *carry)
{
    *carry = false;
    switch (operation + ADD) {
    case ADD:
        *carry = a + b < a;
        return a + b;
    case SUB:
        *carry = a < b;
        return a - b;
    case AND:
        return a & b;
    case OR:
        return a | b;
    default:
        return a ^ b;
    }
}

static void emit_operation(struct batch *batch, unsigned operation, uint32_t load, uint32_t store, uint32_t from)
{
    emit(batch, MI_MATH(4));
    emit(batch, ALU(LOAD, SRCA, 0));
    emit(batch, ALU(load, SRCB, 1));
    emit(batch, ALU(operation + ADD, 0, 0));
    emit(batch, ALU(store, 2, from));
}

static void emit_wide(struct batch *batch, uint32_t offset, uint64_t value)
{
    emit_register(batch, offset, (uint32_t)value);
    emit_register(batch, offset + 4, (uint32_t)(value >> 32));
}

static void emit_wide_store(struct batch *batch, uint32_t offset, uint64_t address)
{
    emit_register_store(batch, offset, address);
    emit_register_store(batch, offset + 4, address + 4);
}

static uint64_t operand(uint64_t *random, unsigned round)
{
    static const uint64_t edges[] = {0, ~0ull, 1, 1ull << 63};
    return round < 4 ? edges[(round + (unsigned)random_below(random, 2)) % 4] : random_next(random);
}

static void arithmetic(struct queue queue, uint64_t *random)
{
    uint32_t base = queue.engine->base;
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t a = operand(random, round), b = operand(random, round);
        struct object out = object_new(queue.file, PAGE_SIZE);
        struct batch batch = batch_new(queue, 2 * PAGE_SIZE);
        batch_use(&batch, &out);
        emit_wide(&batch, base + GPR(0), a);
        emit_wide(&batch, base + GPR(1), b);
        uint64_t at = out.address;
        static const struct { uint32_t load, store, from; } forms[] = {
            {LOAD, STORE, ACCU}, {LOADINV, STORE, ACCU}, {LOAD, STOREINV, ACCU}, {LOAD, STORE, ZF}, {LOAD, STORE, CF},
        };
        for (unsigned operation = 0; operation < OPERATIONS; operation++)
            for (unsigned form = 0; form < 5; form++, at += 8) {
                emit_operation(&batch, operation, forms[form].load, forms[form].store, forms[form].from);
                emit_wide_store(&batch, base + GPR(2), at);
            }
        batch_run(&batch);
        const uint64_t *got = (const uint64_t *)(const void *)out.dwords;
        for (unsigned operation = 0; operation < OPERATIONS; operation++, got += 5) {
            bool carry, ignored;
            uint64_t value = computed(operation, a, b, &carry), inverse = computed(operation, a, ~b, &ignored);
            static const char *const names[] = {"ADD", "SUB", "AND", "OR", "XOR"};
            bool ok = got[0] == value && got[1] == inverse && got[2] == ~value && got[3] == (value == 0 ? ~0ull : 0);
            if (operation < 2) /* what the others leave in the carry flag is not said */
                ok = ok && got[4] == (carry ? ~0ull : 0);
            if (!ok)
                printf("%s %#llx %#llx: %#llx %#llx %#llx %#llx %#llx\n", names[operation], (unsigned long long)a,
                       (unsigned long long)b, (unsigned long long)got[0], (unsigned long long)got[1],
                       (unsigned long long)got[2], (unsigned long long)got[3], (unsigned long long)got[4]);
            check(1, ok, "MI_MATH %s, operands %u %s", names[operation], round, queue.engine->name);
        }
        object_end(&out);
    }
}

/* LRI, LRM, LRR and SRM move the same value; LRI has many registers. */
static void moves(struct queue queue)
{
    uint32_t base = queue.engine->base;
    struct object data = object_new(queue.file, PAGE_SIZE);
    struct batch batch = batch_new(queue, PAGE_SIZE);
    batch_use(&batch, &data);
    data.dwords[0] = 0x5eed0001;
    emit(&batch, MI_LOAD_REGISTER_IMM(3));
    for (unsigned i = 3; i < 6; i++) {
        emit(&batch, base + GPR(i));
        emit(&batch, 0xa0u + i);
    }
    emit(&batch, MI_LOAD_REGISTER_MEM);
    emit(&batch, base + GPR(6));
    emit_address(&batch, data.address);
    for (unsigned i = 3; i < 7; i++)
        emit_register_store(&batch, base + GPR(i), data.address + 4 * i);
    if (queue.engine != &engines[BCS0]) {
        emit(&batch, MI_LOAD_REGISTER_REG);
        emit(&batch, base + GPR(6));
        emit(&batch, base + GPR(7));
        emit_register_store(&batch, base + GPR(7), data.address + 4 * 7);
    }
    batch_run(&batch);
    for (unsigned i = 3; i < 6; i++)
        check(0xa0u + i, data.dwords[i], "MI_LOAD_REGISTER_IMM of several, register %u %s", i, queue.engine->name);
    check(0x5eed0001, data.dwords[6], "MI_LOAD_REGISTER_MEM %s", queue.engine->name);
    if (queue.engine != &engines[BCS0])
        check(0x5eed0001, data.dwords[7], "MI_LOAD_REGISTER_REG %s", queue.engine->name);
    object_end(&data);
}

/* MI_ATOMIC on the render engine: 32 and 64 bits, and the old value in a register is not asked for. */
static void atomics(struct queue queue)
{
    enum { INC = 0x05, DEC = 0x06, ADD4 = 0x07 };
    struct object data = object_new(queue.file, PAGE_SIZE);
    struct batch batch = batch_new(queue, PAGE_SIZE);
    batch_use(&batch, &data);
    data.dwords[0] = 41;
    data.dwords[2] = 10;
    data.dwords[4] = 7;
    emit(&batch, MI_ATOMIC | INC << 8);
    emit_address(&batch, data.address);
    emit(&batch, MI_ATOMIC | DEC << 8);
    emit_address(&batch, data.address + 8);
    emit_register(&batch, queue.engine->base + GPR(0), 100); /* operand 1 */
    emit(&batch, MI_ATOMIC | ADD4 << 8);
    emit_address(&batch, data.address + 16);
    batch_run(&batch);
    check(42, data.dwords[0], "MI_ATOMIC increment %s", queue.engine->name);
    check(9, data.dwords[2], "MI_ATOMIC decrement %s", queue.engine->name);
    check(107, data.dwords[4], "MI_ATOMIC add %s", queue.engine->name);
    object_end(&data);
}

void check_registers(unsigned size)
{
    (void)size;
    int file = gpu_open();
    uint64_t random = SEED;
    printf("seed %#llx\n", (unsigned long long)random);
    for (unsigned i = 0; i < ENGINES; i++) {
        struct queue queue = {file, 0, &engines[i]};
        moves(queue);
        arithmetic(queue, &random);
    }
    atomics((struct queue){file, 0, &engines[RCS0]});
}
