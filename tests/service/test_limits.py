"""A daemon whose limits do not allow what its configuration grants the guest does not start."""

from __future__ import annotations

import configparser
import resource
from pathlib import Path

import pytest

from tests.support.daemon_process import start
from xengt_dm.config.files import read_setting
from xengt_dm.config.merge import Config
from xengt_dm.errors import ConfigError
from xengt_dm.service import limits

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "xengt-dm@.service"
GROUP = "xengt.slice/xengt-dm@5.service"


def config(*settings: str) -> Config:
    return Config(map(read_setting, settings))


def host(root: Path, cgroup: str = f"0::/{GROUP}\n", mappings: str | None = "65530\n") -> Path:
    """A root directory in which /proc and /sys say that."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    if mappings is not None:
        (root / "proc/sys/vm").mkdir(parents=True)
        (root / "proc/sys/vm/max_map_count").write_text(mappings)
    return root


def memory_max(root: Path, group: str, text: str) -> Path:
    folder = host(root) / "sys/fs/cgroup" / group
    folder.mkdir(parents=True)
    (folder / "memory.max").write_text(text)
    return root


def test_the_units_limit_allows_the_defaults() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.read(UNIT)
    allowed = int(parser["Service"]["MemoryMax"].removesuffix("M")) * limits.MIB
    needed = limits.memory_needed(config())
    assert needed <= allowed <= 1.3 * needed


@pytest.mark.parametrize("group", [GROUP, "xengt.slice", ""])
def test_memory_that_a_group_does_not_allow(tmp_path: Path, group: str) -> None:
    root = memory_max(tmp_path, group, f"{512 * limits.MIB}\n")
    limits.check(config("shadow.max_tables=4096"), root)
    with pytest.raises(ConfigError) as refused:
        limits.check(config("shadow.max_tables=131072"), root)
    path = root / "sys/fs/cgroup" / group / "memory.max"
    assert str(refused.value) == (
        f"shadow.max_tables = 131072 may take 812 MiB of memory, and {path} allows 512 MiB; raise MemoryMax= with "
        "`systemctl edit`, or lower shadow.max_tables"
    )


def test_the_first_version_of_control_groups(tmp_path: Path) -> None:
    root = host(tmp_path, "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n")
    folder = root / "sys/fs/cgroup/memory/a"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("1000000\n")
    with pytest.raises(ConfigError, match=r"memory\.limit_in_bytes allows 0 MiB"):
        limits.check(config(), root)


@pytest.mark.parametrize("text", ["max\n", "9223372036854771712\n", "", "\xff"])
def test_a_group_without_a_limit(tmp_path: Path, text: str) -> None:
    limits.check(config("shadow.max_tables=16777216"), memory_max(tmp_path, GROUP, text))


@pytest.mark.parametrize("cgroup", ["", "nonsense", "0::/../elsewhere\n", "::::\n", "4:memory:/a\n"])
def test_a_container_without_control_groups(tmp_path: Path, cgroup: str) -> None:
    limits.check(config("shadow.max_tables=16777216"), host(tmp_path, cgroup))
    limits.check(config("shadow.max_tables=16777216"), tmp_path / "empty")


@pytest.mark.parametrize(("mappings", "source"), [("65530\n", "vm.max_map_count"), (None, "the kernel by default")])
def test_more_mappings_than_the_kernel_allows(tmp_path: Path, mappings: str | None, source: str) -> None:
    """A guest of 127 GiB takes 65,024 of the 65,530 that there are, and the program has some, too."""
    root = host(tmp_path, mappings=mappings)
    limits.check(config("shadow.max_mapped_mib=122880"), root)
    with pytest.raises(ConfigError) as refused:
        limits.check(config("shadow.max_mapped_mib=130048"), root)
    assert f"shadow.max_mapped_mib = 130048 may take 67072 mappings, and {source}" in str(refused.value)
    assert "allows 65530" in str(refused.value)


def test_more_mappings_on_a_host_that_allows_them(tmp_path: Path) -> None:
    limits.check(config("shadow.max_mapped_mib=130048"), host(tmp_path, mappings="1048576\n"))


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1 << 30, 1 << 30))
    with pytest.raises(ConfigError, match="may take 2585 MiB of addresses, and RLIMIT_AS allows 1024 MiB"):
        limits.check(config(), host(tmp_path))
    limits.check(config("shadow.max_mapped_mib=256"), tmp_path)


def test_what_a_daemon_takes_is_less_than_what_is_assumed(tmp_path: Path) -> None:
    with start(tmp_path, "strict", "quiet") as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "storing\n"
        status = Path(f"/proc/{daemon.pid}/status").read_text()
        mappings = len(Path(f"/proc/{daemon.pid}/maps").read_text().splitlines())
        daemon.terminate()
        daemon.communicate()
    resident = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))
    assert resident < limits.BASE
    assert mappings < limits.OTHER_MAPPINGS / 2
