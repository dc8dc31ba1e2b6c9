"""Guest programs: freestanding ELF images that Xen enters through the PVH note, or SeaBIOS by Multiboot.

They are 32-bit programs with a common runtime, but for those of :data:`_LONG_MODE`, which have their own.
"""

from collections.abc import Iterable
from pathlib import Path

from . import command

_SOURCES = Path(__file__).resolve().parents[1] / "guest"
_COMMON = ("start.S", "lab.c", "store.c", "space.c")
# What an HVM guest has otherwise: QEMU's devices begin at 0xF0000000, and the firmware has had the second vCPU already.
_HVM = ("-DRUNNING_VCPUS=1u", "-DBAR0_GPA=0xF8000000u")
_HVM_SUFFIX = "_hvm"
_LONG_MODE = ("cost",)


def compile_all(names: Iterable[str], target: Path) -> None:
    """Compile guest/NAME.c with the common runtime to target/NAME.elf for every name; NAME_hvm is the same for HVM.

    Raises LabError.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        long_mode = name in _LONG_MODE
        common = ("long_mode.S",) if long_mode else _COMMON
        sources = [_SOURCES / source for source in (*common, f"{name.removesuffix(_HVM_SUFFIX)}.c")]
        flags = _HVM if name.endswith(_HVM_SUFFIX) else ()
        how = _SOURCES / ("cflags64" if long_mode else "cflags")
        link: list[str | Path] = ["-T", _SOURCES / "guest.ld", "-o", target / f"{name}.elf"]
        command.run(
            ["gcc", f"@{how}", *flags, *link, *sources],
            what=f"compiling the guest program {name}",
        )
