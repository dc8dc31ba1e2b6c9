"""The registers that only one engine has: the render engine's 3D and media state, and the blitter's control.

Nothing draws, so these only hold what is written. Most are per context, and a batch without privilege may write many of
them, as gem_ctx_isolation of igt-gpu-tools checks for generation 9.
"""

from __future__ import annotations

from typing import Any, Final

from xengt_dm.vgpu.registers.register import ALL_BITS, EXTRA, IMAGE, Field, Register, fields

_GT: Final = "gt/intel_gt_regs.h"
_PRM: Final = "Intel, Skylake Programmer's Reference Manual, volume 2c"


def _user(name: str, offset: int, size: int = 4, source: str = _GT, **more: Any) -> Register:
    """A register of the render engine that each context has for itself, and that user batches may write."""
    row = Register(name, offset, size, f"{source} {name}", block="rcs0", context=EXTRA, user=True)
    return row._replace(**more)


def _masked(name: str, offset: int, source: str = _GT, bits: tuple[Field, ...] = (), context: str = "") -> Register:
    """A masked register of the render engine that only privileged batches, and those with a slot for it, may write."""
    return Register(name, offset, source=f"{source} {name}", masked=True, block="rcs0", fields=bits, context=context)


def _plain(name: str, offset: int, source: str = _GT, **more: Any) -> Register:
    return Register(name, offset, source=f"{source} {name}", block="rcs0")._replace(**more)


#: Low two bits of a write offset are none.
_DWORDS: Final = ALL_BITS & ~3

_PIPELINE: Final = (
    _user("GPGPU_THREADS_DISPATCHED", 0x2290, 8),
    _user("PS_INVOCATION_COUNT_0", 0x22C8, 8, _PRM),
    _user("PS_DEPTH_COUNT_0", 0x22D8, 8, _PRM),
    _user("PS_INVOCATION_COUNT_1", 0x22F0, 8, _PRM),
    _user("PS_DEPTH_COUNT_1", 0x22F8, 8, _PRM),
    _user("HS_INVOCATION_COUNT", 0x2300, 8),
    _user("DS_INVOCATION_COUNT", 0x2308, 8),
    _user("IA_VERTICES_COUNT", 0x2310, 8),
    _user("IA_PRIMITIVES_COUNT", 0x2318, 8),
    _user("VS_INVOCATION_COUNT", 0x2320, 8),
    _user("GS_INVOCATION_COUNT", 0x2328, 8),
    _user("GS_PRIMITIVES_COUNT", 0x2330, 8),
    _user("CL_INVOCATION_COUNT", 0x2338, 8),
    _user("CL_PRIMITIVES_COUNT", 0x2340, 8),
    _user("OACTXCONTROL", 0x2360, source="i915_perf_oa_regs.h GEN8"),
    _user("OACTXID", 0x2364, source="i915_perf_oa_regs.h GEN9"),
    _user("PS_INVOCATION_COUNT_2", 0x2448, 8, _PRM),
    _user("PS_DEPTH_COUNT_2", 0x2450, 8, _PRM),
    _user("3DPRIM_END_OFFSET", 0x2420),
    _user("3DPRIM_START_VERTEX", 0x2430),
    _user("3DPRIM_VERTEX_COUNT", 0x2434),
    _user("3DPRIM_INSTANCE_COUNT", 0x2438),
    _user("3DPRIM_START_INSTANCE", 0x243C),
    _user("3DPRIM_BASE_VERTEX", 0x2440),
    _user("GPGPU_DISPATCHDIMX", 0x2500),
    _user("GPGPU_DISPATCHDIMY", 0x2504),
    _user("GPGPU_DISPATCHDIMZ", 0x2508),
    *(_user(f"SO_NUM_PRIMS_WRITTEN{n}", 0x5200 + 8 * n, 8) for n in range(4)),
    *(_user(f"SO_PRIM_STORAGE_NEEDED{n}", 0x5240 + 8 * n, 8) for n in range(4)),
    *(_user(f"SO_WRITE_OFFSET{n}", 0x5280 + 4 * n, source=_PRM, writable=_DWORDS) for n in range(4)),
    _user("CACHE_MODE_0", 0x7000, masked=True),
    _user(
        "CACHE_MODE_1",
        0x7004,
        masked=True,
        fields=fields("PARTIAL_RESOLVE_IN_VC_DISABLE:1 4X4_STC_OPTIMIZATION_DISABLE:6"),
    ),
    _user("GT_MODE", 0x7008, masked=True),
    _user("L3CNTLREG", 0x7034, fields=fields("ERRDETBCTRL:9")),
    _user("TD_CTL", 0xE400, source=_PRM, writable=0xFFFF),
    _user("TD_CTL2", 0xE404, source=_PRM),
)

_PREDICATE: Final = (
    _user("MI_PREDICATE_SRC0", 0x2400, 8, "gt/intel_engine_regs.h"),
    _user("MI_PREDICATE_SRC1", 0x2408, 8, "gt/intel_engine_regs.h"),
    _user("MI_PREDICATE_DATA", 0x2410, 8, "gt/intel_engine_regs.h"),
    _user("MI_PREDICATE_RESULT", 0x2418, source="gt/intel_engine_regs.h", writable=1, fields=fields("RESULT:0")),
    _user("MI_PREDICATE_RESULT_1", 0x241C, source="gt/intel_engine_regs.h", context=IMAGE),
    _plain("MI_PREDICATE_RESULT_2", 0x23BC, "gt/intel_engine_regs.h", fields=fields("LOWER_SLICE_ENABLED:0")),
)

_RING: Final = (
    _plain("PGTBL_ER", 0x2024, "i915_reg.h"),
    _user("INSTPM", 0x20C0, source="gt/intel_engine_regs.h RING", masked=True, context=IMAGE),
    _plain(
        "R_PWR_CLK_STATE",
        0x20C8,
        "gt/intel_engine_regs.h GEN8",
        context=IMAGE,
        fields=fields(
            "EU_MIN:3-0 EU_MAX:7-4 SUBSLICES:10-8 SUBSLICES_ENABLE:11 SLICES:17-15 SLICES_ENABLE:18 ENABLE:31"
        ),
    ),
    _user("BB_OFFSET", 0x2158, source="gt/intel_engine_regs.h RING", context=IMAGE),
    _plain("CTX_PREEMPT_REG", 0x2248),
)

#: Work-arounds of gt/intel_workarounds.c: of the engine, of contexts, and the registers that slots offer to users.
_WORKAROUNDS: Final = (
    _masked("FF_SLICE_CHICKEN", 0x2088, bits=fields("CL_PROVOKING_VERTEX_FIX:1")),
    _masked("3D_CHICKEN3", 0x2090, bits=fields("SF_DISABLE_OBJEND_CULL:10 SF_PROVOKING_VERTEX_FIX:12")),
    _masked("CSFE_CHICKEN1_RCS", 0x20D4, bits=fields("PREEMPT_GPGPU_SYNC_SWITCH_DISABLE:2")),
    _masked("FF_SLICE_CS_CHICKEN1", 0x20E0, bits=fields("FFSC_PERCTX_PREEMPT_CTRL:14")),
    _masked("FF_SLICE_CS_CHICKEN2", 0x20E4, bits=fields("TSG_BARRIER_ACK_DISABLE:8")),
    _masked("CS_DEBUG_MODE1", 0x20EC, bits=fields("FF_DOP_CLOCK_GATE_DISABLE:1")),
    _masked("CS_CHICKEN1", 0x2580, context=EXTRA, bits=fields("PREEMPT_3D_OBJECT_LEVEL:0 PREEMPT_GPGPU_LEVEL:2-1")),
    _masked("COMMON_SLICE_CHICKEN1", 0x7010, bits=fields("RHWO_OPTIMIZATION_DISABLE:14")),
    _masked(
        "COMMON_SLICE_CHICKEN2",
        0x7014,
        context=EXTRA,
        bits=fields("DISABLE_GATHER_AT_SET_SHADER_COMMON_SLICE:12 PBE_COMPRESSED_HASH_SELECTION:13"),
    ),
    _masked("HIZ_CHICKEN", 0x7018),
    _masked(
        "HDC_CHICKEN0",
        0x7300,
        bits=fields(
            "FORCE_NON_COHERENT:4 FORCE_CONTEXT_SAVE_RESTORE_NON_COHERENT:5 FENCE_DEST_SLM_DISABLE:14 "
            "FORCE_CSR_NON_COHERENT_OVR_DISABLE:15"
        ),
    ),
    _masked("HDC_CHICKEN1", 0x7304, context=EXTRA),
    _masked("HALF_SLICE_CHICKEN1", 0xE100),
    _masked("HALF_SLICE_CHICKEN2", 0xE180, bits=fields("ST_PO_DISABLE:13")),
    _masked("HALF_SLICE_CHICKEN3", 0xE184, bits=fields("SAMPLER_POWER_BYPASS_DIS:1")),
    _masked("HALF_SLICE_CHICKEN5", 0xE188, bits=fields("CCS_TLB_PREFETCH_ENABLE:3 DG_MIRROR_FIX_ENABLE:5")),
    _masked(
        "HALF_SLICE_CHICKEN7",
        0xE194,
        bits=fields("ENABLE_GPGPU_PREEMPTION:2 ENABLE_YV12_BUGFIX:4 SAMPLER_HASH_COMPRESSED_READ_ADDR:8"),
    ),
    _masked("ROW_CHICKEN", 0xE4F0),
    _plain("GARBCNTL", 0xB004, fields=fields("GAPS_TSV_CREDIT_DISABLE:7")),
    _plain("SCRATCH_LNCF1", 0xB008, fields=fields("NONIA_COHERENT_ATOMICS_ENABLE:0")),
    _plain("L3SQCREG4", 0xB118, fields=fields("FLUSH_COHERENT_LINES:21 RO_PERF_DIS:27")),
    _plain("SCRATCH1", 0xB11C, fields=fields("LBS_SLA_RETRY_TIMER_DECREMENT_ENABLE:2 EVICTION_PERF_FIX_ENABLE:8")),
)

#: Units that are always done: nothing draws.
_DONE: Final = (
    _plain("SC_INSTDONE", 0x7100, writable=0, reset=0xFFFFFFFF),
    _plain("SAMPLER_INSTDONE", 0xE160, writable=0, reset=0xFFFFFFFF),
    _plain("ROW_INSTDONE", 0xE164, writable=0, reset=0xFFFFFFFF),
)

_BLITTER: Final = (
    Register(
        "BCS_SWCTRL",
        0x22200,
        source="i915_reg.h BCS_SWCTRL; i915_cmd_parser.c lets user batches write it",
        writable=3,
        masked=True,
        block="bcs0",
        fields=fields("SOURCE_Y:0 DESTINATION_Y:1"),
        context=IMAGE,
        user=True,
    ),
    *(
        Register(
            f"{name}.RING_INSTPM",
            base + 0xC0,
            source="gt/intel_engine_regs.h RING_INSTPM",
            masked=True,
            block=name,
            context=IMAGE,
        )
        for name, base in (("bcs0", 0x22000), ("vcs0", 0x12000), ("vecs0", 0x1A000))
    ),
    *(
        Register(f"{name}.RING_{at:X}", base + at, source="gt/intel_lrc.c gen9_xcs_offsets", block=name, context=IMAGE)
        for name, base in (("bcs0", 0x22000), ("vcs0", 0x12000), ("vecs0", 0x1A000))
        for at in (0x158, 0x200, 0x41C)
        if (name, at) != ("bcs0", 0x200)
    ),
)

REGISTERS: Final = (*_RING, *_PREDICATE, *_PIPELINE, *_WORKAROUNDS, *_DONE, *_BLITTER)
