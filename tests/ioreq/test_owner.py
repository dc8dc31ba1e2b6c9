"""Only the thread that serves a guest may touch what it serves with, and nobody while a burst is under way."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from tests.support.schedule import core_ffi
from tests.support.tables import FRAME, pte
from xengt_dm._core import ffi, lib
from xengt_dm._embedded import lib as embedded
from xengt_dm.hypervisor.embedded import EmbeddedDomain, EmbeddedPort
from xengt_dm.hypervisor.embedded.port import EmbeddedEventPort
from xengt_dm.hypervisor.port import ChannelCalls
from xengt_dm.instance import Instance, open_instance
from xengt_dm.ppgtt.space import Mode
from xengt_dm.settings import Settings
from xengt_dm.steps import complete
from xengt_dm.units import CData

L4, L3, L2, L1 = range(2, 6)
WRONG = "belongs to the thread that serves the guest"


class NosyEvents(EmbeddedEventPort):
    """Channels at each of whose notifies a test does something, in the middle of a burst."""

    nosy: Callable[[], None] = staticmethod(lambda: None)

    @property
    def calls(self) -> ChannelCalls:
        self._callback = core_ffi.callback("int(void *, uint32_t)", self._notify)
        return super().calls._replace(notify=int(core_ffi.cast("uintptr_t", self._callback)))

    def _notify(self, handle: CData, port: int) -> int:
        self.nosy()
        return int(embedded.xd_emb_channels_notify(self.handle, port))


class NosyPort(EmbeddedPort):
    def __init__(self, domain: EmbeddedDomain) -> None:
        super().__init__(domain)
        self._events.close()
        self._events: NosyEvents = NosyEvents(domain)

    @property
    def events(self) -> NosyEvents:
        return self._events


@pytest.fixture
def domain() -> Iterator[EmbeddedDomain]:
    with EmbeddedDomain(64, 2) as made:
        for table in (L4, L3, L2):
            made.write(table * FRAME, pte(table + 1).to_bytes(8, "little"))
        yield made


@pytest.fixture
def port(domain: EmbeddedDomain) -> NosyPort:
    return NosyPort(domain)


@pytest.fixture
def instance(port: NosyPort) -> Iterator[Instance]:
    with open_instance(port, Settings()) as made:
        complete(made.engine.create_space(Mode.L4, (L4 * FRAME,)))
        yield made


def entries(instance: Instance) -> dict[str, Callable[[], object]]:
    """One call of each kind of thing that belongs to whoever serves."""
    shadow, slots = instance.engine.shadow, instance.server.slots
    return {
        "shadow": lambda: lib.xd_find(shadow, L1, 1),
        "a store": lambda: lib.xd_guest_store(shadow, L1 * FRAME, 0, 8, ffi.new("xd_need *")),
        "no result": lambda: lib.xd_new_epoch(shadow),
        "frames": lambda: lib.xd_frames_state(shadow.frames, L1),
        "slots": lambda: slots.take(),
        "state of a slot": lambda: slots.state(1),
        "journal": lambda: lib.xd_journal_forget(slots.journal + 1),
        "a burst": lambda: instance.loop.service(),
    }


def complaints(calls: dict[str, Callable[[], object]]) -> dict[str, str]:
    """What each call raises."""
    found = {}
    for name, call in calls.items():
        try:
            found[name] = f"returned {call()!r}"
        except RuntimeError as error:
            found[name] = str(error)
    return found


def in_another_thread(work: Callable[[], dict[str, str]]) -> dict[str, str]:
    results: list[dict[str, str]] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def test_another_thread_while_a_burst_is_under_way(domain: EmbeddedDomain, port: NosyPort, instance: Instance) -> None:
    """A vCPU stores; before it is notified, a second thread, and the serving thread itself, call into _core."""
    calls = entries(instance)
    found: list[dict[str, str]] = []

    def nosy() -> None:
        port.events.nosy = lambda: None
        found.extend((in_another_thread(lambda: complaints(calls)), complaints(calls)))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(instance.loop.serve)
            port.events.nosy = nosy
            await trio.to_thread.run_sync(domain.vcpu(0).store, L1 * FRAME + 8, 8, pte(9))
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert len(found) == 2
    for each in found:
        assert list(each) == list(calls)
        for name, complaint in each.items():
            assert WRONG in complaint, name
    assert domain.read_u64(L1 * FRAME + 8) == pte(9)
    assert lib.xd_find(instance.engine.shadow, L1, 1)


def test_another_thread_while_the_guest_is_served(instance: Instance) -> None:
    """Also between two bursts; and the serving thread may do all of it then."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(instance.loop.serve)
            calls = entries(instance)
            wrong = await trio.to_thread.run_sync(complaints, calls)
            right = complaints(calls)
            nursery.cancel_scope.cancel()
        assert all(WRONG in complaint for complaint in wrong.values())
        assert all(complaint.startswith("returned") for complaint in right.values()), right

    trio.run(main)
    after = in_another_thread(lambda: complaints(entries(instance)))
    assert all(complaint.startswith("returned") for complaint in after.values()), after


def test_what_another_guest_is_served_with_is_no_business_of_this_one(instance: Instance) -> None:
    with EmbeddedDomain(64, 1) as other_domain, open_instance(other_domain.port(), Settings()) as other:

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(instance.loop.serve)
                free = await trio.to_thread.run_sync(complaints, entries(other))
                nursery.cancel_scope.cancel()
            assert all(complaint.startswith("returned") for complaint in free.values()), free

        trio.run(main)


def test_every_function_that_begins_with_such_a_pointer_is_checked(checkout: Path) -> None:
    """In the headers that cffi_build/build_core.py does not mark, no function takes what belongs to whoever serves."""
    owned = set(re.findall(r'"(\w+\.h)": True', (checkout / "cffi_build" / "build_core.py").read_text()))
    for path in (checkout / "cffi_build" / "core").rglob("*.h"):
        text = re.sub(r"/\*.*?\*/|#ifndef XD_CFFI.*?#endif", "", path.read_text(), flags=re.DOTALL)
        takes = re.search(r"xd_\w+\((const )?(xd_shadow|xd_frames|xd_update|xd_journal_record|xd_burst) \*", text)
        if takes and "static inline" not in text:
            assert path.name in owned, f"{path.name}: {takes[0]}"
