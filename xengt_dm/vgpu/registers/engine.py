"""The registers that each engine has at its base: ring, execlists, errors, batch state, general-purpose registers.

Sources are files of ``drivers/gpu/drm/i915/`` of Linux 6.1 and symbols in them. A register that reads as stored and is
read-only is written by whoever executes the engine's commands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from xengt_dm.vgpu.registers.register import ALL_BITS, CORE, IMAGE, Field, Register, fields


class EngineBlock(NamedTuple):
    """An engine. ``reset_bit``: its bit in GDRST. ``ranges``: the offsets that a reset of the engine resets."""

    name: str
    base: int
    reset_bit: int
    ranges: tuple[range, ...]


_RENDER: Final = (
    range(0x2000, 0x3000),
    range(0x5200, 0x5300),  # stream output
    range(0x7000, 0x7400),  # slices
    range(0xB000, 0xB200),  # L3
    range(0xC800, 0xC900),  # MOCS
    range(0xE000, 0xE800),  # subslices
)
#: In the order that engines have everywhere in this program.
ENGINES: Final = (
    EngineBlock("rcs0", 0x2000, 1, _RENDER),
    EngineBlock("bcs0", 0x22000, 3, (range(0x22000, 0x23000), range(0xCC00, 0xCD00))),
    EngineBlock("vcs0", 0x12000, 2, (range(0x12000, 0x13000), range(0xC900, 0xCA00))),
    EngineBlock("vecs0", 0x1A000, 4, (range(0x1A000, 0x1B000), range(0xCB00, 0xCC00))),
)

NONPRIV_SLOTS: Final = 12
CSB_ENTRIES: Final = 6
GENERAL_PURPOSE: Final = 16

RING_MI_MODE: Final = 0x9C
STOP_RING: Final = 1 << 8
MODE_IDLE: Final = 1 << 9
RING_RESET_CTL: Final = 0xD0
REQUEST_RESET: Final = 1 << 0
READY_TO_RESET: Final = 1 << 1
RING_INSTDONE: Final = 0x6C
RING_TIMESTAMP: Final = 0x358

_REGS: Final = "gt/intel_engine_regs.h"
_IMAGE: Final = "gt/intel_lrc.c gen9_rcs_offsets"
#: The reset values of the two indexes, gt/intel_lrc_reg.h and gt/intel_execlists_submission.c reset_csb_pointers.
_CSB_POINTERS: Final = 0x0505
#: No unit of the engine works.
_ALL_DONE: Final = 0xFFFFFFFF

_EVENTS: Final = "USER_INTERRUPT:0 CS_ERROR:3 FLUSH_NOTIFY:4 CONTEXT_SWITCH:8 WAIT_SEMAPHORE:11"


def event_fields(shift: int = 0, prefix: str = "") -> tuple[Field, ...]:
    """The events of an engine in an interrupt register, where the engine's bits begin at ``shift``."""
    return tuple(Field(prefix + each.name, each.high + shift, each.low + shift) for each in fields(_EVENTS))


class _Row(NamedTuple):
    """As :class:`Register`, with an offset from the engine's base. ``only``: the one engine that has it."""

    name: str
    at: int
    where: str = _REGS
    size: int = 4
    reset: int = 0
    writable: int = ALL_BITS
    clears: int = 0
    masked: bool = False
    on_read: str = ""
    on_write: str = ""
    fields: tuple[Field, ...] = ()
    context: str = ""
    user: bool = False
    served: str = ""


_MI_MODE_FIELDS: Final = fields("STOP_RING:8 MODE_IDLE:9 MI_FLUSH_ENABLE:12 ASYNC_FLIP_PERF_DISABLE:14")
_RING_MODE_FIELDS: Final = fields(
    "PPGTT_48B:7 PPGTT_ENABLE:9 PSMI_GRANULARITY:10 REPLAY_MODE:11 TLB_INVALIDATE_EXPLICIT:13 INTERRUPT_STEERING:14 "
    "RUN_LIST_ENABLE:15"
)
_CTX_CTRL_FIELDS: Final = fields("RESTORE_INHIBIT:0 RS_CTX_ENABLE:1 SAVE_INHIBIT:2 INHIBIT_SYN_CTX_SWITCH:3")
_CSB_FIELDS: Final = fields(
    "IDLE_TO_ACTIVE:0 PREEMPTED:1 ELEMENT_SWITCH:2 ACTIVE_TO_IDLE:3 COMPLETE:4 LITE_RESTORE:15 CONTEXT_ID:63-32"
)

_ROWS: Final = (
    _Row("RING_EXCC", 0x28, context=IMAGE),
    _Row("RING_TAIL", 0x30, writable=0, fields=fields("TAIL:20-3"), context=IMAGE),
    _Row("RING_HEAD", 0x34, writable=0, fields=fields("HEAD:20-2 WRAP_COUNT:31-21"), context=IMAGE),
    _Row("RING_START", 0x38, writable=0, fields=fields("ADDRESS:31-12"), context=IMAGE),
    _Row("RING_CTL", 0x3C, writable=0, fields=fields("VALID:0 WAIT_SEMAPHORE:10 PAGES_LESS_1:20-12"), context=IMAGE),
    _Row("RING_PSMI_CTL", 0x50, masked=True),
    _Row("RING_MAX_IDLE", 0x54, fields=fields("IDLE_TIME:19-0")),
    _Row("RING_ACTHD_UDW", 0x5C, writable=0),
    _Row("RING_DMA_FADD_UDW", 0x60, writable=0),
    _Row("RING_IPEIR", 0x64),
    _Row("RING_IPEHR", 0x68, writable=0, context=IMAGE),
    _Row("RING_INSTDONE", RING_INSTDONE, writable=0, reset=_ALL_DONE, on_read="instdone"),
    _Row("RING_INSTPS", 0x70, writable=0),
    _Row("RING_ACTHD", 0x74, writable=0),
    _Row("RING_DMA_FADD", 0x78, writable=0),
    _Row("RING_HWS_PGA", 0x80, writable=0xFFFFF000, fields=fields("ADDRESS:31-12")),
    _Row("RING_NOPID", 0x94, writable=0x3FFFFF, fields=fields("ID:21-0")),
    _Row("RING_HWSTAM", 0x98, reset=_ALL_DONE),
    _Row(
        "RING_MI_MODE",
        RING_MI_MODE,
        "gt/intel_engine_cs.c __intel_engine_stop_cs, ring_is_idle",
        reset=MODE_IDLE,
        writable=ALL_BITS & ~MODE_IDLE,
        masked=True,
        on_read="mode_idle",
        on_write="mi_mode",
        fields=_MI_MODE_FIELDS,
        context=IMAGE,
    ),
    _Row(
        "RING_EIR",
        0xB0,
        "gt/intel_gt.c intel_gt_clear_error_registers",
        writable=0,
        clears=0xFFFFFFFF,
        fields=fields("INSTRUCTION_ERROR:0"),
    ),
    _Row("RING_EMR", 0xB4, reset=_ALL_DONE, fields=fields("INSTRUCTION_ERROR:0")),
    _Row(
        "RING_ESR",
        0xB8,
        "gt/intel_execlists_submission.c enable_error_interrupt",
        writable=0,
        fields=fields("INSTRUCTION_ERROR:0"),
    ),
    _Row(
        "RING_RESET_CTL",
        RING_RESET_CTL,
        "gt/intel_reset.c gen8_engine_reset_prepare",
        writable=REQUEST_RESET,
        masked=True,
        on_write="reset_ctl",
        fields=fields("REQUEST_RESET:0 READY_TO_RESET:1 CAT_ERROR:2"),
    ),
    _Row("RING_BBSTATE", 0x110, writable=0, fields=fields("PPGTT:5"), context=IMAGE),
    _Row("RING_SBBADDR", 0x114, writable=0, context=IMAGE),
    _Row("RING_SBBSTATE", 0x118, writable=0, context=IMAGE),
    _Row("RING_SBBADDR_UDW", 0x11C, writable=0, context=IMAGE),
    _Row("RING_BBADDR", 0x140, writable=0, context=IMAGE),
    _Row("RING_150", 0x150, _IMAGE, context=IMAGE),
    _Row("RING_154", 0x154, _IMAGE, context=IMAGE),
    _Row("RING_BBADDR_UDW", 0x168, writable=0, context=IMAGE),
    _Row("RING_170", 0x170, _IMAGE, context=IMAGE),
    _Row("RING_178", 0x178, _IMAGE, context=IMAGE),
    _Row("RING_17C", 0x17C, _IMAGE, context=IMAGE),
    _Row("RING_CCID", 0x180),
    _Row("RING_BB_PER_CTX_PTR", 0x1C0, fields=fields("VALID:0 FORCE:2 ADDRESS:31-12"), context=IMAGE),
    _Row("RING_INDIRECT_CTX", 0x1C4, fields=fields("CACHE_LINES:5-0 ADDRESS:31-6"), context=IMAGE),
    _Row("RING_INDIRECT_CTX_OFFSET", 0x1C8, fields=fields("OFFSET:15-6"), context=IMAGE),
    _Row("RING_ELSP", 0x230, "gt/intel_execlists_submission.c write_desc", writable=0, served=CORE),
    _Row("RING_EXECLIST_STATUS_LO", 0x234, writable=0),
    _Row(
        "RING_EXECLIST_STATUS_HI",
        0x238,
        "gt/intel_execlists_submission.c active_ccid",
        writable=0,
        fields=fields("CONTEXT_ID:31-0"),
    ),
    _Row("RING_CONTEXT_CONTROL", 0x244, masked=True, fields=_CTX_CTRL_FIELDS, context=IMAGE),
    *(_Row(f"RING_PDP{n}", 0x270 + 8 * n, size=8, fields=fields("ADDRESS:47-12"), context=IMAGE) for n in range(4)),
    _Row("RING_MODE", 0x29C, "gt/intel_execlists_submission.c enable_execlists", masked=True, fields=_RING_MODE_FIELDS),
    _Row("RING_TIMESTAMP", RING_TIMESTAMP, size=8, writable=0, on_read="timestamp", fields=fields("TICKS:35-0")),
    *(
        _Row(
            f"RING_CONTEXT_STATUS_BUF{n}",
            0x370 + 8 * n,
            "gt/intel_execlists_submission.c wa_csb_read",
            8,
            writable=0,
            fields=_CSB_FIELDS,
        )
        for n in range(CSB_ENTRIES)
    ),
    _Row(
        "RING_CONTEXT_STATUS_PTR",
        0x3A0,
        "gt/intel_execlists_submission.c reset_csb_pointers",
        reset=_CSB_POINTERS,
        writable=0x707,
        masked=True,
        fields=fields("WRITE:2-0 READ:10-8"),
        served=CORE,
    ),
    _Row("RING_CTX_TIMESTAMP", 0x3A8, "gt/intel_lrc.c lrc_update_runtime", writable=0, context=IMAGE, served=CORE),
    *(
        _Row(f"RING_CS_GPR{n}", 0x600 + 8 * n, "gt/intel_engine_regs.h GEN8_RING_CS_GPR", 8, context=IMAGE, user=True)
        for n in range(GENERAL_PURPOSE)
    ),
)


def rows_of(engine: EngineBlock) -> Iterator[Register]:
    """The rows of one engine, without those that only one kind of engine has."""
    for row in _ROWS:
        yield Register(
            f"{engine.name}.{row.name}",
            engine.base + row.at,
            row.size,
            row.where if row.where != _REGS else f"{_REGS} {row.name}",
            row.reset,
            row.writable,
            row.clears,
            row.masked,
            row.on_read,
            row.on_write,
            block=engine.name,
            fields=row.fields,
            context=row.context,
            user=row.user,
            served=row.served,
        )
    shift = 16 if engine.name == "bcs0" else 0
    yield Register(
        f"{engine.name}.RING_IMR",
        engine.base + 0xA8,
        source="gt/gen8_engine_cs.c gen8_logical_ring_enable_irq",
        reset=_ALL_DONE,
        block=engine.name,
        fields=event_fields(shift),
        served=CORE,
    )
    for slot in range(NONPRIV_SLOTS):
        yield Register(
            f"{engine.name}.RING_FORCE_TO_NONPRIV{slot}",
            engine.base + 0x4D0 + 4 * slot,
            source="gt/intel_engine_regs.h RING_FORCE_TO_NONPRIV; an unused slot names RING_NOPID, gt/"
            "intel_workarounds.c intel_engine_apply_whitelist",
            reset=engine.base + 0x94,
            block=engine.name,
            fields=fields("REGISTER:25-2"),
        )


REGISTERS: Final = tuple(row for engine in ENGINES for row in rows_of(engine))
