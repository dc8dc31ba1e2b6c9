"""The blitter in C against its twin, on random commands and a memory with holes and read-only pages."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.vgpu.blit.commands import Commands
from tests.vgpu.blit.twin import MalformedError, Twin
from tests.vgpu.blit.world import REGION_STARTS, Blitter, Guest, MalformedInCError, TwinMemory

Made = list[tuple[list[int], int]]
Maker = Callable[[Commands], Made]
MAKERS: dict[str, Maker] = {
    "legacy": lambda commands: commands.legacy(),
    "fast copy": lambda commands: [commands.fast_copy()],
    "within one surface": lambda commands: [commands.copy_within()],
    "after a setup": lambda commands: commands.from_setup(),
}


def spelled(made: Made) -> str:
    return "; ".join(f"{' '.join(f'{dword:08x}' for dword in dwords)} swctrl {swctrl}" for dwords, swctrl in made)


class Pair:
    """The C and the twin, on the same memory."""

    def __init__(self, guest: Guest, budgets: tuple[int, ...] = (1 << 40,)) -> None:
        self.guest = guest
        self.blitter = Blitter(guest, budgets)
        self.memory = TwinMemory(guest)
        self.twin = Twin(self.memory)

    def execute(self, dwords: list[int], swctrl: int) -> None:
        try:
            self.twin.execute(dwords, swctrl)
        except MalformedError:
            with pytest.raises(MalformedInCError):
                self.blitter.execute(dwords, swctrl)
            return
        self.blitter.execute(dwords, swctrl)

    def differences(self) -> list[int]:
        """Where in guest memory they differ."""
        ours, theirs = bytes(self.guest.bench.memory), bytes(self.memory.bytes)
        return [] if ours == theirs else [i for i in range(len(ours)) if ours[i] != theirs[i]]


def check(
    maker: Maker, seed: int, commands: int, *, holes: int = 0, missing: float = 0.0, read_only: float = 0.0
) -> None:
    """``holes``: frames that are none, of 1536."""
    rng = random.Random(seed)
    guest = Guest(rng, holes=holes, known=rng.sample(range(3), 1) if holes else None)
    starts = rng.sample(REGION_STARTS, 2)
    for start in starts:
        guest.map_region(start, missing=missing, read_only=read_only)
    pair = Pair(guest, rng.choice(((1 << 40,), (1,), (5000, 1, 20000))))
    source = Commands(rng, *starts)
    for number in range(commands):
        made = maker(source)
        for dwords, swctrl in made:
            pair.execute(dwords, swctrl)
        if wrong := pair.differences():
            pytest.fail(f"seed {seed}, command {number}: {len(wrong)} bytes from {wrong[0]:#x} on: {spelled(made)}")


@pytest.mark.parametrize("kind", MAKERS)
@examples(12)
@given(seed=st.integers(0, 1 << 32))
def test_random_commands(kind: str, seed: int) -> None:
    check(MAKERS[kind], seed, 20)


@pytest.mark.parametrize("kind", MAKERS)
@examples(8)
@given(seed=st.integers(0, 1 << 32))
def test_holes_and_read_only_pages(kind: str, seed: int) -> None:
    check(MAKERS[kind], seed, 20, holes=200, missing=0.15, read_only=0.2)
