"""Which kinds of device a domain can have, by what xenstore says of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOENT

import pytest

from xengt_dm import xenstore
from xengt_dm.cli.options import check_type
from xengt_dm.config.files import Assignment
from xengt_dm.config.keys import KEYS
from xengt_dm.config.merge import Config
from xengt_dm.errors import ConfigError, HostError


class Store:
    """A xenstore with the types of domains."""

    def __init__(self, types: dict[int, str]) -> None:
        self._nodes = {f"/libxl/{domid}/type": name for domid, name in types.items()}

    def read(self, path: str) -> str:
        if path not in self._nodes:
            raise HostError("xenstore read", None, ENOENT)
        return self._nodes[path]


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def opened() -> Iterator[Store]:
        yield Store({1: "hvm", 2: "pvh"})

    monkeypatch.setattr(xenstore, "XenStore", opened)


def config(kind: str) -> Config:
    return Config([Assignment(KEYS["device.kind"], kind, "here")])


@pytest.mark.parametrize(("kind", "domid"), [("skylake", 1), ("skylake", 3), ("ppgtt", 1), ("ppgtt", 2)])
def test_kinds_that_a_domain_can_have(kind: str, domid: int) -> None:
    check_type(config(kind), domid)


def test_a_pvh_guest_gets_no_skylake() -> None:
    with pytest.raises(ConfigError, match="domain 2 is a PVH guest"):
        check_type(config("skylake"), 2)
