"""Hypothesis strategies for pages of page tables: what drivers write, what nobody should, and plain noise."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import strategies as st

ENTRIES = 512
FLAGS = (0x000, 0x001, 0x003, 0x013, 0x01B, 0x083, 0x08B, 0x803, 0x883, 0x1083, 0x1003, 0xFFF, 0x002, 0x080)
#: Where two kernels meet: ends of a page, of a group of 16, of what is compared eight at a time.
SLOTS = (0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 255, 256, 496, 504, 510, 511)

slots = st.sampled_from(SLOTS) | st.integers(0, ENTRIES - 1)


def entries(frames: Sequence[int]) -> st.SearchStrategy[int]:
    """Entries that mostly name one of ``frames``."""
    named = st.builds(
        lambda frame, flags, high: frame << 12 | flags | high << 46,
        st.sampled_from(list(frames)),
        st.sampled_from(FLAGS),
        st.sampled_from([0, 0, 0, 1, 0x3FFFF]),
    )
    return named | named | st.integers(0, (1 << 64) - 1)


@st.composite
def pages(draw: st.DrawFn, frames: Sequence[int]) -> list[int]:
    """A page: a ground that shrinks to nothing, and a few entries on top."""
    style = draw(st.sampled_from(["empty", "constant", "counting", "noise", "mixture"]))
    if style == "empty":
        page = [0] * ENTRIES
    elif style == "constant":
        page = [draw(entries(frames))] * ENTRIES
    elif style == "counting":
        first = draw(entries(frames))
        page = [(first + (i << 12)) & (1 << 64) - 1 for i in range(ENTRIES)]
    else:
        rng = random.Random(draw(st.integers(0, 1 << 32)))
        page = [rng.getrandbits(64) for _ in range(ENTRIES)]
        if style == "mixture":
            page = [rng.choice(frames) << 12 | rng.choice(FLAGS) if rng.random() < 0.7 else word for word in page]
    for slot, entry in draw(st.dictionaries(slots, entries(frames), max_size=6)).items():
        page[slot] = entry
    return page


@st.composite
def ranges(draw: st.DrawFn) -> range:
    """Slots first..last as a range; often all of them, often one."""
    first, last = sorted((draw(slots), draw(slots)))
    return draw(st.sampled_from([range(ENTRIES), range(first, first + 1), range(first, last + 1)]))
