#include "mi_register.h"

enum { OFFSET_MASK = 0x7ffffc, USE_GGTT = 1 << 22, STORE_PREDICATED = 1 << 21, BYTE_DISABLE_SHIFT = 8 };

static void load(xd_cs *cs, uint32_t offset, uint32_t value, uint32_t lanes)
{
    offset &= OFFSET_MASK;
    if (xd_cs_is_user(cs) && !xd_cs_may_store(cs->gpu, cs->number, offset)) {
        cs->gpu->counts.denied++;
        return;
    }
    if (xd_cs_register_store(cs->gpu, cs->number, offset, value, lanes))
        xd_cs_progress(cs);
}

/* Returns the bits of the bytes that a command does not disable. */
static uint32_t enabled_lanes(uint32_t header)
{
    uint32_t lanes = 0;
    for (uint32_t byte = 0; byte < 4; byte++)
        if (!(header >> (BYTE_DISABLE_SHIFT + byte) & 1))
            lanes |= 0xffu << 8 * byte;
    return lanes;
}

int xd_mi_load_register_imm(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    uint32_t lanes = enabled_lanes(d[0]);
    for (uint32_t i = 1; i + 1 < count; i += 2)
        load(cs, d[i], d[i + 1], lanes);
    return XD_CS_IDLE;
}

int xd_mi_load_register_mem(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    (void)count;
    if (xd_cs_is_denied(cs, d[0] & USE_GGTT))
        return XD_CS_IDLE;
    const xd_gpu_space *space = xd_cs_space(cs, d[0] & USE_GGTT);
    if (!space)
        return XD_CS_SYNC;
    uint64_t value;
    int reason = xd_cs_load(cs, space, xd_cs_address(d + 2), 4, &value);
    if (!reason)
        load(cs, d[1], (uint32_t)value, UINT32_MAX);
    return reason;
}

int xd_mi_load_register_reg(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    (void)count;
    load(cs, d[2], xd_cs_register(cs->gpu, cs->number, d[1] & OFFSET_MASK), UINT32_MAX);
    return XD_CS_IDLE;
}

int xd_mi_store_register_mem(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    (void)count;
    if (d[0] & STORE_PREDICATED && !(xd_register(cs->gpu, PREDICATE_RESULT) & 1))
        return XD_CS_IDLE;
    if (xd_cs_is_denied(cs, d[0] & USE_GGTT))
        return XD_CS_IDLE;
    const xd_gpu_space *space = xd_cs_space(cs, d[0] & USE_GGTT);
    if (!space)
        return XD_CS_SYNC;
    uint32_t value = xd_cs_register(cs->gpu, cs->number, d[1] & OFFSET_MASK);
    return xd_cs_store(cs, space, xd_cs_address(d + 2), value, 4);
}

/* MI_MATH */

enum {
    LOAD = 0x080,
    LOAD_ZERO = 0x081,
    LOAD_INVERTED = 0x480,
    LOAD_ONES = 0x481,
    ADD = 0x100,
    SUB = 0x101,
    AND = 0x102,
    OR = 0x103,
    XOR = 0x104,
    STORE = 0x180,
    STORE_INVERTED = 0x580
};
enum { SOURCE_A = 0x20, SOURCE_B = 0x21, ACCUMULATOR = 0x31, ZERO_FLAG = 0x32, CARRY_FLAG = 0x33 };

typedef struct unit {
    uint64_t a, b, accumulator;
    bool zero, carry;
} unit;

static uint32_t general_register(const xd_cs *cs, uint32_t number)
{
    return cs->kind->base + RING_GPR + 8 * (number & (RING_GPR_COUNT - 1));
}

static uint64_t operand(const xd_cs *cs, const unit *alu, uint32_t which)
{
    switch (which) {
    case SOURCE_A:
        return alu->a;
    case SOURCE_B:
        return alu->b;
    case ACCUMULATOR:
        return alu->accumulator;
    case ZERO_FLAG:
        return alu->zero ? UINT64_MAX : 0;
    case CARRY_FLAG:
        return alu->carry ? UINT64_MAX : 0;
    default:
        return which < RING_GPR_COUNT ? xd_register64(cs->gpu, general_register(cs, which)) : 0;
    }
}

static void set_source(unit *alu, uint32_t which, uint64_t value)
{
    if (which == SOURCE_A)
        alu->a = value;
    else if (which == SOURCE_B)
        alu->b = value;
}

static void compute(unit *alu, uint32_t operation)
{
    uint64_t a = alu->a, b = alu->b;
    alu->carry = false;
    switch (operation) {
    case ADD:
        alu->accumulator = a + b;
        alu->carry = alu->accumulator < a;
        break;
    case SUB:
        alu->accumulator = a - b;
        alu->carry = a < b;
        break;
    case AND:
        alu->accumulator = a & b;
        break;
    case OR:
        alu->accumulator = a | b;
        break;
    default:
        alu->accumulator = a ^ b;
        break;
    }
    alu->zero = !alu->accumulator;
}

static void store(xd_cs *cs, uint32_t number, uint64_t value)
{
    uint32_t offset = general_register(cs, number);
    if (number >= RING_GPR_COUNT || xd_register64(cs->gpu, offset) == value)
        return;
    xd_register_store64(cs->gpu, offset, value);
    xd_cs_progress(cs);
}

int xd_mi_math(xd_cs *cs, const uint32_t *d, uint32_t count)
{
    unit alu = {0};
    for (uint32_t i = 1; i < count; i++) {
        uint32_t operation = d[i] >> 20, first = d[i] >> 10 & 0x3ff, second = d[i] & 0x3ff;
        switch (operation) {
        case LOAD:
            set_source(&alu, first, operand(cs, &alu, second));
            break;
        case LOAD_INVERTED:
            set_source(&alu, first, ~operand(cs, &alu, second));
            break;
        case LOAD_ZERO:
            set_source(&alu, first, 0);
            break;
        case LOAD_ONES:
            set_source(&alu, first, UINT64_MAX);
            break;
        case ADD:
        case SUB:
        case AND:
        case OR:
        case XOR:
            compute(&alu, operation);
            break;
        case STORE:
            store(cs, first, operand(cs, &alu, second));
            break;
        case STORE_INVERTED:
            store(cs, first, ~operand(cs, &alu, second));
            break;
        default:
            break;
        }
    }
    return XD_CS_IDLE;
}
