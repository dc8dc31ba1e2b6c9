"""Commands to the memory interface (MI), which all engines have: opcodes are bits 28:23 of the header.

Sources: Skylake PRM volume 6 "Command Stream Programming" (opcodes, engines, and what a batch without privilege may
do); for fields, Mesa 24 ``src/intel/genxml`` and Linux 6.1 ``gt/intel_gpu_commands.h``; for lengths, Linux 6.1
``gvt/cmd_parser.c`` and ``i915_cmd_parser.c``. What a row adds to that is in its ``source``.
"""

from __future__ import annotations

from typing import Any, Final

from xengt_dm.vgpu.commands.command import (
    BITS_5,
    BITS_7,
    BITS_9,
    ENGINES,
    ONE,
    RENDER,
    Client,
    Command,
    Group,
    Length,
    address,
    bits,
    fixed,
    flag,
    hexadecimal,
    offset,
    register,
)
from xengt_dm.vgpu.commands.values import (
    ALU,
    ALU_OPERAND,
    ATOMIC,
    COMPARE,
    DISPLAY_PLANE,
    ENGINE_NAMES,
    POST_SYNC,
    SET_PREDICATE,
)

#: Opcodes below this one are of one dword.
FIRST_LONG: Final = 0x10

_NOT_RENDER: Final = tuple(engine for engine in ENGINES if engine != "rcs0")
_GGTT: Final = flag(0, 22, "GGTT")


def _mi(opcode: int, name: str, does: str, length: Length = ONE, **more: Any) -> Command:
    return Command(f"MI_{name}", Client.MI, opcode, length, does, **more)


_SHORT: Final = (
    _mi(
        0x00,
        "NOOP",
        "noop",
        fields=(flag(0, 22, "write NOPID"), hexadecimal(0, "identification", 21)),
    ),
    _mi(
        0x01,
        "SET_PREDICATE",
        "set_predicate",
        engines=RENDER,
        fields=(
            bits(
                0,
                3,
                0,
                "skip",
                SET_PREDICATE,
            ),
        ),
    ),
    _mi(0x02, "USER_INTERRUPT", "user_interrupt"),
    _mi(0x03, "WAIT_FOR_EVENT", "nothing", fields=(hexadecimal(0, "events", 21),)),
    _mi(0x04, "FLUSH", "nothing", source="not in the manual of this generation"),
    _mi(0x05, "ARB_CHECK", "arb_check"),
    _mi(0x06, "RS_CONTROL", "nothing", engines=RENDER, fields=(flag(0, 0, "start"),)),
    _mi(0x07, "REPORT_HEAD", "report_head"),
    _mi(
        0x08,
        "ARB_ON_OFF",
        "arb_on_off",
        fields=(bits(0, 0, 0, "arbitration", {0: "off", 1: "on"}),),
        privileged=True,
        source="i915 sends it to the blitter, too, which the manual excepts",
    ),
    _mi(0x09, "URB_ATOMIC_ALLOC", "nothing", engines=RENDER),
    _mi(0x0A, "BATCH_BUFFER_END", "batch_buffer_end"),
    _mi(0x0B, "SUSPEND_FLUSH", "nothing", fields=(flag(0, 0, "suspend"),)),
    _mi(
        0x0C,
        "PREDICATE",
        "predicate",
        engines=RENDER,
        fields=(
            bits(0, 7, 6, "load", {0: "keep", 2: "load", 3: "load inverted"}),
            bits(0, 4, 3, "combine", {0: "set", 1: "and", 2: "or", 3: "xor"}),
            bits(0, 1, 0, "compare", {0: "true", 1: "false", 2: "sources equal", 3: "deltas equal"}),
        ),
    ),
    _mi(0x0D, "TOPOLOGY_FILTER", "nothing", engines=RENDER, fields=(bits(0, 5, 0, "topology"),)),
    _mi(0x0E, "SET_APPID", "nothing", source="Linux 6.1 only"),
    _mi(0x0F, "RS_CONTEXT", "nothing", engines=RENDER, fields=(bits(0, 0, 0, "", {0: "restore", 1: "save"}),)),
)

_SCAN_LINES: Final = (
    bits(0, 21, 19, "plane", DISPLAY_PLANE),
    bits(1, 28, 16, "first line"),
    bits(1, 12, 0, "last line"),
)
_LONG: Final = (
    _mi(0x12, "LOAD_SCAN_LINES_INCL", "nothing", BITS_5, fields=_SCAN_LINES, usual=2),
    _mi(0x13, "LOAD_SCAN_LINES_EXCL", "nothing", BITS_5, fields=_SCAN_LINES, usual=2),
    _mi(
        0x14,
        "DISPLAY_FLIP",
        "nothing",
        BITS_7,
        engines=("rcs0", "bcs0"),
        fields=(
            flag(0, 22, "async"),
            bits(0, 12, 8, "plane"),
            bits(1, 15, 6, "pitch"),
            offset(2, "buffer", 12),
        ),
        privileged=True,
    ),
    _mi(0x16, "SEMAPHORE_MBOX", "nothing", BITS_7, source="of earlier generations; the manual lists it still"),
    _mi(
        0x18,
        "SET_CONTEXT",
        "nothing",
        BITS_7,
        engines=RENDER,
        fields=(flag(1, 0, "restore inhibit"), flag(1, 1, "force restore"), offset(1, "context", 12)),
        privileged=True,
        usual=2,
        source="without effect where contexts are submitted in lists",
    ),
    _mi(0x19, "URB_CLEAR", "nothing", BITS_7, engines=RENDER, source="Linux 6.1 only"),
    _mi(
        0x1A,
        "MATH",
        "math",
        BITS_7,
        group=Group(
            1,
            1,
            (
                bits(0, 31, 20, "", ALU),
                bits(0, 19, 10, "operand 1", ALU_OPERAND),
                bits(0, 9, 0, "operand 2", ALU_OPERAND),
            ),
        ),
    ),
    _mi(
        0x1B,
        "SEMAPHORE_SIGNAL",
        "semaphore_signal",
        BITS_7,
        fields=(bits(0, 17, 15, "engine", ENGINE_NAMES), flag(0, 21, "post-sync"), hexadecimal(1, "context")),
        usual=2,
    ),
    _mi(
        0x1C,
        "SEMAPHORE_WAIT",
        "semaphore_wait",
        BITS_7,
        fields=(
            _GGTT,
            bits(0, 15, 15, "wait", {0: "for a signal", 1: "polling"}),
            bits(0, 14, 12, "until memory is", COMPARE),
            hexadecimal(1, "data"),
            address(2),
        ),
        least=4,
        usual=4,
    ),
    _mi(
        0x1D,
        "FORCE_WAKEUP",
        "nothing",
        BITS_7,
        engines=_NOT_RENDER,
        fields=(hexadecimal(1, "mask", 31, 16), flag(1, 1, "render awake"), flag(1, 0, "media awake")),
        usual=2,
    ),
    _mi(
        0x20,
        "STORE_DATA_IMM",
        "store_data_imm",
        BITS_9,
        fields=(_GGTT, flag(0, 21, "qword"), address(1)),
        group=Group(3, 1, (hexadecimal(0, "data"),)),
        least=4,
    ),
    _mi(
        0x21,
        "STORE_DATA_INDEX",
        "store_data_index",
        BITS_7,
        fields=(flag(0, 21, "per-process page"), bits(1, 11, 2, "index"), hexadecimal(2, "data")),
        least=3,
        usual=3,
        privileged=True,
    ),
    _mi(
        0x22,
        "LOAD_REGISTER_IMM",
        "load_register_imm",
        BITS_7,
        fields=(flag(0, 12, "posted"), hexadecimal(0, "bytes not written", 11, 8)),
        group=Group(1, 2, (register(0), hexadecimal(1, "value"))),
    ),
    _mi(
        0x23,
        "UPDATE_GTT",
        "update_gtt",
        BITS_9,
        fields=(offset(1, "GGTT address", 12),),
        group=Group(2, 1, (hexadecimal(0, "data"),)),
        least=2,
        privileged=True,
    ),
    _mi(
        0x24,
        "STORE_REGISTER_MEM",
        "store_register_mem",
        BITS_7,
        fields=(_GGTT, flag(0, 21, "predicate"), register(1), address(2)),
        least=4,
        usual=4,
    ),
    _mi(
        0x26,
        "FLUSH_DW",
        "flush_dw",
        BITS_5,
        engines=_NOT_RENDER,
        fields=(
            flag(0, 21, "store index"),
            flag(0, 18, "TLB invalidate"),
            bits(0, 15, 14, "post-sync", POST_SYNC),
            flag(0, 9, "flush LLC"),
            flag(0, 8, "notify"),
            flag(0, 7, "video cache invalidate"),
            flag(1, 2, "GGTT"),
            address(1, low=3),
            hexadecimal(3, "data", 63),
        ),
        least=3,
    ),
    _mi(
        0x27,
        "CLFLUSH",
        "nothing",
        BITS_9,
        engines=RENDER,
        fields=(_GGTT, address(1, low=6)),
    ),
    _mi(
        0x28,
        "REPORT_PERF_COUNT",
        "report_perf_count",
        BITS_5,
        engines=RENDER,
        fields=(flag(1, 0, "GGTT"), address(1, low=6), hexadecimal(3, "report")),
        least=4,
        usual=4,
    ),
    _mi(
        0x29,
        "LOAD_REGISTER_MEM",
        "load_register_mem",
        BITS_7,
        fields=(_GGTT, flag(0, 21, "async"), register(1), address(2)),
        least=4,
        usual=4,
    ),
    _mi(
        0x2A,
        "LOAD_REGISTER_REG",
        "load_register_reg",
        BITS_7,
        fields=(register(1, "from"), register(2, "to")),
        least=3,
        usual=3,
    ),
    _mi(
        0x2B,
        "RS_STORE_DATA_IMM",
        "nothing",
        BITS_7,
        engines=RENDER,
        fields=(address(1), hexadecimal(3, "data")),
        usual=4,
        source="for the resource streamer, which is not there",
    ),
    _mi(
        0x2C,
        "LOAD_URB_MEM",
        "skip",
        BITS_7,
        engines=RENDER,
        fields=(bits(1, 14, 2, "URB address"), address(2, low=6)),
        usual=4,
    ),
    _mi(
        0x2D,
        "STORE_URB_MEM",
        "skip",
        BITS_7,
        engines=RENDER,
        fields=(bits(1, 14, 2, "URB address"), address(2, low=6)),
        usual=4,
    ),
    _mi(
        0x2E,
        "COPY_MEM_MEM",
        "copy_mem_mem",
        BITS_7,
        fields=(flag(0, 22, "GGTT source"), flag(0, 21, "GGTT destination"), address(1, "to"), address(3, "from")),
        least=5,
        usual=5,
    ),
    _mi(
        0x2F,
        "ATOMIC",
        "atomic",
        BITS_7,
        fields=(
            _GGTT,
            flag(0, 21, "post-sync"),
            bits(0, 20, 19, "size", {0: "dword", 1: "qword", 2: "octword"}),
            flag(0, 18, "inline data"),
            flag(0, 17, "CS stall"),
            flag(0, 16, "return"),
            bits(0, 15, 8, "operation", ATOMIC),
            address(1),
        ),
        group=Group(3, 1, (hexadecimal(0, "operand"),)),
        least=3,
    ),
    _mi(
        *(0x31, "BATCH_BUFFER_START", "batch_buffer_start", fixed(3)),
        fields=(
            bits(0, 22, 22, "level", {0: "1", 1: "2"}),
            flag(0, 16, "add offset"),
            flag(0, 15, "predicate"),
            flag(0, 10, "resource streamer"),
            bits(0, 8, 8, "", {0: "GGTT", 1: "PPGTT"}),
            address(1),
        ),
        least=3,
        usual=3,
    ),
    _mi(
        0x36,
        "CONDITIONAL_BATCH_BUFFER_END",
        "conditional_batch_buffer_end",
        BITS_7,
        fields=(_GGTT, flag(0, 21, "compare"), flag(0, 19, "mask"), hexadecimal(1, "data"), address(2, low=3)),
        least=4,
        usual=4,
    ),
)

COMMANDS: Final = (*_SHORT, *_LONG)


def rule(opcode: int) -> Length:
    """The length of a command that has no row."""
    return ONE if opcode < FIRST_LONG else BITS_7
