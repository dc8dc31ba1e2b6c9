"""Differences are found, and said so that a person sees them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.oracle import compare, expected
from tests.oracle.compare import ALWAYS
from tests.oracle.script import PTE, Script


def trace() -> Script:
    script = Script()
    script.path(1, 2, 3, 4)
    script.create(1)
    script.create(1, 0, 0, 0)
    for index in range(8):
        script.entry(4, index, 20 + index + index // 4, PTE)
    script.dump("a")
    return script


def right() -> tuple[dict[str, Any], dict[str, Any]]:
    """What is expected, and an output that is as expected."""
    want = expected(trace().trace)
    counters = dict.fromkeys(ALWAYS, 0)
    counters |= {name: least for name, (least, _) in want["counters"]["strict"].items()}
    counters["traps"] = counters["store_traps"] + counters["mmio_traps"]
    counters["more"] = 7
    return want, {"dumps": copy.deepcopy(want["dumps"]), "counters": counters}


def test_no_differences() -> None:
    assert compare(*right()) == []


def l4(output: dict[str, Any]) -> Any:
    return output["dumps"][0]["spaces"][1]


WHERE = "dump 0 ('a'): space l4 0x1000: "


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda o: o.pop("dumps"), ["there is no list of dumps"]),
        (lambda o: o.pop("counters"), ["there are no counters"]),
        (lambda o: o["dumps"].pop(), ["1 dumps expected, 0 given"]),
        (lambda o: o["dumps"][0].update(id="b"), ["dump 0 ('a'): its id is 'b'"]),
        (lambda o: o["dumps"][0]["spaces"].pop(), ["dump 0 ('a'): space l4 0x1000 is missing"]),
        (lambda o: o["dumps"][0]["spaces"].reverse(), ["dump 0 ('a'): spaces are in the order"]),
        (lambda o: l4(o).update(root=0x2000), [" 0x1000 is missing", " 0x2000 is not live"]),
        (lambda o: l4(o).update(mappings=None), [WHERE + "mappings are null with truncated False"]),
        (
            lambda o: l4(o).update(mappings=None, truncated=True),
            [WHERE + "mappings are null, expected 2 runs"],
        ),
        (
            lambda o: l4(o)["mappings"].pop(),
            [WHERE + "[0x4000+0x4000 -> 0x19000 rw cache 4] should be mapped, but is not"],
        ),
        (
            lambda o: l4(o)["mappings"][1].__setitem__(1, 0x3000),
            [WHERE + "[0x7000+0x1000 -> 0x1c000 rw cache 4] should be mapped, but is not"],
        ),
        (
            lambda o: l4(o)["mappings"][0].__setitem__(3, 0),
            ["[0x0+0x4000 -> 0x14000 ro cache 4] is mapped, but should not be", "should be mapped, but is not"],
        ),
        (
            lambda o: l4(o)["mappings"].insert(0, [0, 0x1000, 0x14000, 1, 4]),
            ["the run [0x0+0x4000 -> 0x14000 rw cache 4] comes after [0x0+0x1000"],
        ),
        (
            lambda o: l4(o)["mappings"].__setitem__(
                slice(0, 1), [[0, 4096, 0x14000, 1, 4], [4096, 12288, 0x15000, 1, 4]]
            ),
            ["the run [0x1000+0x3000 -> 0x15000 rw cache 4] comes after [0x0+0x1000"],
        ),
        (lambda o: o["counters"].update(store_traps=9), ["counter store_traps is 9, expected 8"]),
        (lambda o: o["counters"].update(traps=1), ["counter traps is 1, not store_traps + mmio_traps"]),
        (lambda o: o["counters"].update(syncs=None), ["counter syncs is None"]),
        (lambda o: o["counters"].update(audit_mismatches=1), ["counter audit_mismatches is 1, expected 0"]),
    ],
)
def test_differences_are_named(spoil: Any, said: list[str]) -> None:
    want, output = right()
    spoil(output)
    found = compare(want, output)
    assert len(found) == len(said)
    for part in said:
        assert any(part in difference for difference in found), found


def test_a_quota_forgives_less_but_not_more() -> None:
    want, output = right()
    l4(output)["mappings"].pop()
    output["counters"]["store_traps"] = 99
    output["counters"]["traps"] = 99 + output["counters"]["mmio_traps"]
    assert compare(want, output, max_tables=3) == []
    assert "should be mapped" in compare(want, output, max_tables=4)[0]
    l4(output)["mappings"][0][2] += 4096
    assert "is mapped, but should not be" in compare(want, output, max_tables=3)[0]


def test_only_so_many_differences() -> None:
    script = Script()
    script.path(1, 2, 3, 4)
    script.create(1)
    script.fill(4, 0, 100, 20 << 12 | PTE)
    script.dump("a")
    want = expected(script.trace)
    given = copy.deepcopy(want["dumps"])
    given[0]["spaces"][0]["mappings"] = []
    found = compare(want, {"dumps": given, "counters": right()[1]["counters"]})
    assert "dump 0 ('a'): space l4 0x1000: and 95 more" in found
