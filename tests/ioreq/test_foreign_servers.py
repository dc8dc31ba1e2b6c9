"""A record of a server's id that was left of an earlier domain with this id: in this domain that is QEMU's server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.device_model import DeviceModel
from xengt_dm.hypervisor.embedded import EmbeddedDomain
from xengt_dm.instance import open_instance
from xengt_dm.ioreq import foreign
from xengt_dm.run_dir.server_id import ServerIdFile
from xengt_dm.settings import DEFAULT_BAR0, Settings
from xengt_dm.vgpu.registers import BAR0_SIZE

DEVICE = (0x1000000, 0x1000FFF)
UUID = "0f8a3c1e-0000-4000-8000-00000000000a"
OTHER = "0f8a3c1e-0000-4000-8000-00000000000b"


@pytest.fixture
def domain() -> Iterator[EmbeddedDomain]:
    with EmbeddedDomain(64, 2) as made:
        yield made


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "ENDED_SECONDS", 0.01)


class Qemu(DeviceModel):
    """Another device model; without its channels it has just made its server."""

    def __init__(self, domain: EmbeddedDomain, *, bound: bool, enabled: bool = True) -> None:
        super().__init__(domain, [DEVICE], claim=False)
        self.ranges = domain.range_count(self.server)
        if not bound:
            for port in list(self.channels.values()):
                self.port.events.unbind(port)
        if not enabled:
            self.port.set_server_state(self.server, False)


@pytest.mark.parametrize(("bound", "enabled"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("uuids", [(None, None), (None, UUID), (UUID, None), (OTHER, UUID)])
def test_the_server_of_another_device_model_is_left_alone(
    domain: EmbeddedDomain, tmp_path: Path, bound: bool, enabled: bool, uuids: tuple[str | None, str | None]
) -> None:
    qemu = Qemu(domain, bound=bound, enabled=enabled)
    recorded, own = uuids
    ServerIdFile(tmp_path, recorded).write(qemu.server)
    problems: list[str] = []
    for _ in range(2):
        with open_instance(
            domain.port(), Settings(), record=ServerIdFile(tmp_path, own), refused=problems.append
        ) as instance:
            assert instance.server.id != qemu.server
            assert not instance.server.adopted
            assert ServerIdFile(tmp_path, own).read() == instance.server.id
            assert domain.range_count(qemu.server) == qemu.ranges
        ServerIdFile(tmp_path, recorded).write(qemu.server)
    assert qemu.port.server_exists(qemu.server)
    assert domain.range_count(qemu.server) == qemu.ranges
    if recorded != OTHER:
        assert set(problems) == {f"ioreq server {qemu.server}, which is on record, is not ours"}


@pytest.mark.parametrize("uuids", [(None, None), (None, UUID), (UUID, None), (UUID, UUID)])
def test_the_server_of_a_predecessor_is_adopted(
    domain: EmbeddedDomain, tmp_path: Path, uuids: tuple[str | None, str | None]
) -> None:
    dead = DeviceModel(domain, [(DEFAULT_BAR0, DEFAULT_BAR0 + BAR0_SIZE - 1)], claim=True)
    dead.close()
    recorded, own = uuids
    ServerIdFile(tmp_path, recorded).write(dead.server)
    with open_instance(domain.port(), Settings(), record=ServerIdFile(tmp_path, own)) as instance:
        assert instance.server.id == dead.server
        assert instance.server.adopted
