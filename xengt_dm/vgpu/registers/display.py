"""What is left of the display, which is fused off: fuses, power wells, and registers that a driver touches even so.

Linux 6.1 sets its power wells up before it finds that there is no display, and warns if they do not answer
(display/intel_display_power.c intel_power_domains_init_hw). Linux 6.12 never asks.
"""

from __future__ import annotations

from typing import Any, Final

from xengt_dm.vgpu.registers.register import Register, fields

POWER_WELL_CTLS: Final = tuple(range(0x45400, 0x45410, 4))
#: A request at bit 2n + 1 is answered at bit 2n.
WELL_REQUESTS: Final = 0xAAAAAAAA

_WELL_FIELDS: Final = fields(
    "MISC_IO_STATE:0 MISC_IO_REQUEST:1 DDI_AE_STATE:2 DDI_AE_REQUEST:3 DDI_B_STATE:4 DDI_B_REQUEST:5 DDI_C_STATE:6 "
    "DDI_C_REQUEST:7 DDI_D_STATE:8 DDI_D_REQUEST:9 PW1_STATE:28 PW1_REQUEST:29 PW2_STATE:30 PW2_REQUEST:31"
)


def _row(name: str, offset: int, source: str, **more: Any) -> Register:
    return Register(name, offset, source=source, block="display")._replace(**more)


REGISTERS: Final = (
    _row(
        "DFSM",
        0x51000,
        "i915_reg.h SKL_DFSM; intel_device_info.c intel_device_info_runtime_init: pipes A, B and C are off",
        reset=1 << 30 | 1 << 28 | 1 << 21,
        writable=0,
        fields=fields("PIPE_B_DISABLE:21 PIPE_C_DISABLE:28 PIPE_A_DISABLE:30"),
    ),
    _row(
        "FUSE_STATUS",
        0x42000,
        "i915_reg.h SKL_FUSE_STATUS; display/intel_display_power_well.c gen9_wait_for_power_well_fuses",
        reset=7 << 25,
        writable=0,
        fields=fields("PG2_DIST:25 PG1_DIST:26 PG0_DIST:27 DOWNLOAD:31"),
    ),
    _row(
        "FPGA_DBG",
        0x42300,
        "i915_reg.h FPGA_DBG; intel_uncore.c fpga_check_for_unclaimed_mmio: nothing is unclaimed",
        writable=0,
        fields=fields("UNCLAIMED_MMIO:31"),
    ),
    *(
        _row(
            f"PWR_WELL_CTL{n + 1}",
            offset,
            "display/intel_display_power_well.c hsw_wait_for_power_well_enable",
            writable=WELL_REQUESTS,
            on_write="power_well",
            fields=_WELL_FIELDS,
        )
        for n, offset in enumerate(POWER_WELL_CTLS)
    ),
    _row("CHICKEN_PAR1_1", 0x42080, "i915_reg.h CHICKEN_PAR1_1; intel_pm.c gen9_init_clock_gating"),
    _row("DPFC_CHICKEN", 0x43224, "display/intel_fbc.c ILK_DPFC_CHICKEN"),
    _row("DERRMR", 0x44050, "i915_reg.h DERRMR"),
    _row("DE_MISC_IER", 0x4446C, "i915_reg.h GEN8_DE_MISC_IER"),
    _row("DISP_ARB_CTL", 0x45000, "i915_reg.h DISP_ARB_CTL; intel_pm.c gen9_init_clock_gating"),
    _row("DC_STATE_EN", 0x45504, "display/intel_display_power_well.c gen9_set_dc_state"),
    _row("NDE_RSTWRN_OPT", 0x46408, "i915_reg.h HSW_NDE_RSTWRN_OPT", fields=fields("RST_PCH_HANDSHAKE_EN:4")),
    _row("CHICKEN_DCPR_1", 0x46430, "i915_reg.h GEN8_CHICKEN_DCPR_1"),
    _row("RAWCLK_FREQ", 0xC6204, "i915_reg.h PCH_RAWCLK_FREQ; display/intel_cdclk.c intel_read_rawclk"),
)
