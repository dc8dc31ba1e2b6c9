"""The table of keys against what it stands for: the code that uses the values, and the file that is installed."""

from __future__ import annotations

import re
from pathlib import Path

from xengt_dm.config import example
from xengt_dm.config.files import Assignment, read_file
from xengt_dm.config.keys import KEYS, SECTIONS
from xengt_dm.config.merge import Config
from xengt_dm.log.log import LEVELS
from xengt_dm.log.ratelimit import BURST, SECONDS_EACH
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.settings import Settings
from xengt_dm.vgpu import registers as reg
from xengt_dm.vgpu.device import Model, Vgpu
from xengt_dm.vgpu.state import SIZE, DeviceState

INSTALLED = Path(__file__).resolve().parents[2] / "etc" / "xengt-dm.toml"


def test_the_installed_file_is_the_table() -> None:
    assert INSTALLED.read_text() == example.text(), "make it anew: xengt-dm config example > etc/xengt-dm.toml"


def test_the_installed_file_says_nothing_and_uncommented_the_defaults(tmp_path: Path) -> None:
    assert read_file(INSTALLED) == []
    path = tmp_path / "all.toml"
    path.write_text(re.sub(r"(?m)^#(?=\w)", "", INSTALLED.read_text()))
    found = read_file(path)
    assert found is not None
    assert {each.key.name: each.value for each in found} == {key.name: key.default for key in KEYS.values()}


def test_every_key_is_documented_and_in_a_known_section() -> None:
    for key in KEYS.values():
        assert key.section in SECTIONS
        assert key.doc.endswith(".")
        assert re.fullmatch(r"[a-z]+\.[a-z0-9_]+", key.name)


def test_choices_are_what_the_code_knows() -> None:
    assert set(KEYS["shadow.mode"].choices) == {sync.value for sync in Sync}
    assert set(KEYS["log.level"].choices) == set(LEVELS)
    assert (KEYS["log.burst"].default, KEYS["log.interval_ms"].default) == (BURST, SECONDS_EACH * 1000)


def test_a_skylake_is_of_generation_9() -> None:
    """Whatever is configured; the other kind is as it is configured."""
    kind, generation = KEYS["device.kind"], KEYS["device.generation"]
    for name, expected in (("skylake", 9), ("ppgtt", 8)):
        config = Config([Assignment(kind, name, "here"), Assignment(generation, 8, "here")])
        settings = Settings.from_config(config)
        assert (settings.model, settings.generation) == (Model(name), expected)
    assert {model.value for model in Model} == set(kind.choices)


def test_settings_without_a_configuration_are_the_defaults() -> None:
    assert Settings.from_config(Config([])) == Settings()


def test_the_bounds_reach_the_settings() -> None:
    values = {"shadow.max_tables": 7, "shadow.max_spaces": 9, "shadow.max_mapped_mib": 256}
    settings = Settings.from_config(Config([Assignment(KEYS[name], value, "here") for name, value in values.items()]))
    assert (settings.max_tables, settings.max_spaces, settings.max_mapped_chunks) == (7, 9, 128)
    assert Settings().max_mapped_chunks == 1024, "a chunk has 2 MiB"


class NoSpaces:
    def create_space(self, mode: object, roots: object) -> None: ...

    def destroy_space(self, mode: object, roots: object) -> bool:
        return False

    def set_64k_pages(self, enabled: bool) -> None: ...

    def ignore_notification(self) -> None: ...


def reset_device(graphics: reg.GraphicsMemory) -> Vgpu:
    state = DeviceState(memoryview(bytearray(SIZE)))
    device = Vgpu(NoSpaces(), state, generation=8, vgt_id=1, graphics=graphics)
    device.reset()
    return device


def test_the_guest_is_told_of_its_graphics_memory() -> None:
    device = reset_device(reg.GraphicsMemory(96, 448, 4))
    assert [device.read(reg.PVINFO + offset, 4) for offset in (0x40, 0x44, 0x48, 0x4C, 0x50)] == [
        0,
        96 << 20,
        128 << 20,
        448 << 20,
        4,
    ]
    device = reset_device(reg.NO_GRAPHICS_MEMORY)
    assert [device.read(reg.PVINFO + offset, 4) for offset in (0x40, 0x44, 0x48, 0x4C, 0x50)] == [0] * 5


def test_all_graphics_memory_that_the_table_allows_fits_its_register() -> None:
    low, high = KEYS["device.low_gm_mib"].high, KEYS["device.high_gm_mib"].high
    assert max(low, high, reg.GraphicsMemory(low).high_base_mib) << 20 < 1 << 32
