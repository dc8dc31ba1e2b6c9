"""Guest programs: 32-bit freestanding ELF images that Xen enters through the PVH note."""

from collections.abc import Iterable
from pathlib import Path

from . import command

_SOURCES = Path(__file__).resolve().parents[1] / "guest"
_COMMON = ("start.S", "lab.c", "store.c", "space.c")


def compile_all(names: Iterable[str], target: Path) -> None:
    """Compile guest/NAME.c with the common runtime to target/NAME.elf for every name. Raises LabError."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        sources = [_SOURCES / source for source in (*_COMMON, f"{name}.c")]
        command.run(
            ["gcc", f"@{_SOURCES / 'cflags'}", "-T", _SOURCES / "guest.ld", "-o", target / f"{name}.elf", *sources],
            what=f"compiling the guest program {name}",
        )
