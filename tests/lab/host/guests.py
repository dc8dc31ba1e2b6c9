"""Guest programs: 32-bit freestanding ELF images that Xen enters through the PVH note, or SeaBIOS by Multiboot."""

from collections.abc import Iterable
from pathlib import Path

from . import command

_SOURCES = Path(__file__).resolve().parents[1] / "guest"
_COMMON = ("start.S", "lab.c", "store.c", "space.c")
# What an HVM guest has otherwise: QEMU's devices begin at 0xF0000000, and the firmware has had the second vCPU already.
_HVM = ("-DRUNNING_VCPUS=1u", "-DBAR0_GPA=0xF8000000u")
_HVM_SUFFIX = "_hvm"


def compile_all(names: Iterable[str], target: Path) -> None:
    """Compile guest/NAME.c with the common runtime to target/NAME.elf for every name; NAME_hvm is the same for HVM.

    Raises LabError.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        sources = [_SOURCES / source for source in (*_COMMON, f"{name.removesuffix(_HVM_SUFFIX)}.c")]
        flags = _HVM if name.endswith(_HVM_SUFFIX) else ()
        link: list[str | Path] = ["-T", _SOURCES / "guest.ld", "-o", target / f"{name}.elf"]
        command.run(
            ["gcc", f"@{_SOURCES / 'cflags'}", *flags, *link, *sources],
            what=f"compiling the guest program {name}",
        )
