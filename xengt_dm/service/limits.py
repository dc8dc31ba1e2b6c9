"""Whether the limits of this process allow what its configuration does. Checked before anything is started.

Facts: a process that exceeds its control group's memory.max is killed, and then its guest's vCPUs wait. A process may
have vm.max_map_count mappings and RLIMIT_AS bytes of addresses; beyond these mmap(2) fails while the guest runs.
What follows: a guest could end its instance by using what the configuration grants it.
Decision: the figures are compared at the start, and a daemon whose limits are too low does not start. A limit that
cannot be read does not count, except that the kernel's own vm.max_map_count is assumed: the unit hides /proc/sys.
Cost: the figures below are upper bounds, so a limit that would suffice in practice may be refused.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from xengt_dm.config.merge import Config
from xengt_dm.errors import ConfigError

MIB: Final = 1 << 20
#: The program itself: 32 MiB after the start (tests/service/test_limits.py), and its answers on the control socket.
BASE: Final = 64 * MIB
#: A shadow table with all that belongs to it; docs/performance.md has what was measured.
TABLE: Final = 4400
#: An address space without tables.
SPACE: Final = 1024
#: 2 MiB of guest memory that are mapped: a page table, and the list of pages that the privcmd driver keeps.
CHUNK: Final = 2 * 4096
#: The state (docs/crash-only.md): 11 MiB, and 32 KiB for each GiB of a domain of 160 GiB.
STATE: Final = 16 * MIB
#: What a recording takes: xengt_dm/trace/memory.py and background.py, with the buffers of the thread.
RECORDING: Final = 170 * MIB
#: Mappings beside those of guest memory: some 300 of the program and its libraries, and threads.
OTHER_MAPPINGS: Final = 2048
#: DEFAULT_MAX_MAP_COUNT, linux/mm.h.
DEFAULT_MAP_COUNT: Final = 65530


def memory_needed(config: Config) -> int:
    """Returns how many bytes a daemon with this configuration may take, the guest's memory not included."""
    return (
        BASE
        + RECORDING
        + STATE
        + TABLE * config.integer("shadow.max_tables")
        + SPACE * config.integer("shadow.max_spaces")
        + CHUNK * _chunks(config)
    )


def check(config: Config, root: Path = Path("/")) -> None:
    """Raises ConfigError if a limit of this process is too low. ``root``: where /proc and /sys are."""
    tables, mapped = config.integer("shadow.max_tables"), config.integer("shadow.max_mapped_mib")
    needed = memory_needed(config)
    for path, limit in _memory_limits(root):
        if limit < needed:
            raise ConfigError(
                f"shadow.max_tables = {tables} may take {_mib(needed)} MiB of memory, and {path} allows "
                f"{limit // MIB} MiB; raise MemoryMax= with `systemctl edit`, or lower shadow.max_tables"
            )
    mappings = _chunks(config) + OTHER_MAPPINGS
    count, source = _map_count(root)
    if count < mappings:
        raise ConfigError(
            f"shadow.max_mapped_mib = {mapped} may take {mappings} mappings, and {source} allows {count}; raise "
            "vm.max_map_count with sysctl, or lower shadow.max_mapped_mib"
        )
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    if addresses != resource.RLIM_INFINITY and addresses < needed + mapped * MIB:
        raise ConfigError(
            f"shadow.max_tables = {tables} and shadow.max_mapped_mib = {mapped} may take {_mib(needed + mapped * MIB)} "
            f"MiB of addresses, and RLIMIT_AS allows {addresses // MIB} MiB; raise LimitAS=, or lower these keys"
        )


def _chunks(config: Config) -> int:
    return config.integer("shadow.max_mapped_mib") // 2


def _mib(size: int) -> int:
    return -(-size // MIB)


def _map_count(root: Path) -> tuple[int, str]:
    path = root / "proc/sys/vm/max_map_count"
    try:
        return int(path.read_text()), "vm.max_map_count"
    except (OSError, ValueError):
        return DEFAULT_MAP_COUNT, f"the kernel by default ({path} cannot be read, with ProcSubset=all it can)"


def _memory_limits(root: Path) -> Iterator[tuple[Path, int]]:
    """Yields each limit that holds for this process: the file that has it, and bytes."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        base = root / "sys/fs/cgroup"
        if not controllers:  # version 2, cgroups(7)
            files = "memory.max"
        elif "memory" in controllers.split(","):
            base, files = base / "memory", "memory.limit_in_bytes"
        else:
            continue
        parts = Path(name.lstrip("/")).parts
        for depth in range(len(parts), -1, -1):
            path = base.joinpath(*parts[:depth], files)
            try:
                yield path, int(path.read_text())
            except (OSError, ValueError):  # no such group here, as in a container; or "max"
                continue
