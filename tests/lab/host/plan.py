"""Which scenarios share a boot, and what each run of the emulator needs."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

_SCENARIOS = Path(__file__).resolve().parents[1] / "scenarios"
_CPUS = 2


def names() -> list[str]:
    """Every scenario there is."""
    return sorted(path.stem for path in _SCENARIOS.glob("[a-z]*.py"))


@dataclass(frozen=True)
class Kind:
    """A kind of machine.

    ``cpus``: the processors of Xen, ``dom0_cpus``: those of dom0. ``icount``: it counts instructions. ``parallel``:
    each processor is a thread of the emulator's. ``xen_options``: words for Xen's command line.
    """

    cpus: int = _CPUS
    dom0_cpus: int = _CPUS
    icount: bool = False
    parallel: bool = False
    xen_options: str = ""


@dataclass(frozen=True)
class Boot:
    """Scenarios that run one after the other in one dom0, in this order."""

    scenarios: tuple[str, ...]
    machine: Kind
    systemd: bool

    @property
    def guests(self) -> list[str]:
        """The guest programs of all of them."""
        return sorted({guest for module in self._modules() for guest in module.GUESTS})

    @property
    def drivers(self) -> list[str]:
        """The drivers for which guests of the distribution's own kernel are made."""
        return sorted({driver for module in self._modules() for driver in getattr(module, "DRIVERS", ())})

    @property
    def folders(self) -> list[str]:
        """The folders of tests/ that dom0 has."""
        return sorted({folder for module in self._modules() for folder in getattr(module, "FOLDERS", ())})

    @property
    def programs(self) -> list[str]:
        """The C programs that dom0 has."""
        return sorted({name for module in self._modules() for name in getattr(module, "PROGRAMS", ())})

    def only(self, scenarios: Iterable[str]) -> Boot:
        """The same machine with some of its scenarios."""
        return replace(self, scenarios=tuple(scenarios))

    def _modules(self) -> list[ModuleType]:
        return [_module(name) for name in self.scenarios]


def boots(scenarios: Sequence[str], full: bool = False) -> list[Boot]:
    """The boots for these scenarios, in their order: all that need the same kind of machine share one.

    systemd is dom0's init where one of them asks for it: the others do not care. One that is ALONE does, and has a boot
    for itself. ``full``: in the size that an issue
    names, for which a scenario may want another number of processors (CPUS_FULL).
    """
    by_machine: dict[tuple[Kind, str], list[str]] = {}
    for name in dict.fromkeys(scenarios):
        alone = name if getattr(_module(name), "ALONE", False) else ""
        by_machine.setdefault((_kind(_module(name), full), alone), []).append(name)
    return [
        Boot(tuple(sharing), kind, any(getattr(_module(name), "SYSTEMD", False) for name in sharing))
        for (kind, _), sharing in by_machine.items()
    ]


def _kind(module: ModuleType, full: bool) -> Kind:
    cpus = getattr(module, "CPUS", _CPUS)
    if full:
        cpus = getattr(module, "CPUS_FULL", cpus)
    return Kind(
        cpus,
        getattr(module, "DOM0_CPUS", cpus),
        getattr(module, "ICOUNT", False),
        getattr(module, "PARALLEL", False),
        getattr(module, "XEN_OPTIONS", ""),
    )


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"scenarios.{name}")
