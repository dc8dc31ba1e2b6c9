"""A hostile guest against the whole device model, for as long as one likes, judged by what nobody here computes twice.

    tests/run campaign --campaign=--seconds=3600 --campaign=--seed=7        (with the sanitizers)
    python -m tests.fuzz.campaign --seconds 60 --seed 7                     (as the project is installed)

A campaign is made of rounds, each a domain of its own; the seed and the number of a round decide everything in it but
the timing of threads. Rounds are of two kinds.

In one, vCPUs of the embedded hypervisor execute stores that C generates (``hostile.c``), of every kind and size, to
page tables and elsewhere, announce and end spaces, and give frames back and take them again. An operator submits,
audits, changes modes, quiesces and resumes meanwhile. In the end the device model stops while they store. In the
other, a page of 128 slots is filled with whatever fits into them, again and again, and some of it changes while it is
served. After each part :mod:`tests.fuzz.judge` looks at everything.

Prints what it has done, and ends with 1 at the first thing that is wrong; ``--round N`` repeats a round alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import select
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tests.fuzz.hostile import FFI, OWNED, load
from tests.fuzz.judge import Judge, OwnedPort, Registers, WrongError, judge
from tests.support.serving import serve_all
from xengt_dm._embedded import ffi as embedded_ffi
from xengt_dm._embedded import lib as embedded
from xengt_dm.hypervisor.embedded import EmbeddedDomain, Vcpu
from xengt_dm.hypervisor.embedded.errors import DomainCrashedError
from xengt_dm.instance import Instance, open_instance
from xengt_dm.ppgtt.engine import Sync
from xengt_dm.settings import Settings
from xengt_dm.steps import Steps

#: Frames at the end of the domain that never were the guest's.
FOREIGN: Final = 64
#: What is done between two looks, and how often that is in a round.
STORES, PARTS = 250_000, 4
PAGES: Final = 25
SLOTS: Final = 128
#: A vCPU that waits longer than this waits for ever.
PATIENCE: Final = 120.0
#: A store over a page's end may end so, as xengt_dm/traps/state.py says under "Not covered".
KNOWN_CRASH: Final = "answer"
_LOG: Final = 1 << 16


@dataclass
class Done:
    """What a campaign has done."""

    tally: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {what}" for what, count in self.tally.items())


@dataclass(frozen=True)
class Plan:
    """What a round is made of."""

    seed: str
    flavour: str
    vcpus: int
    frames: int
    tables: int
    roots: int
    may: int
    rep_stores: bool
    settings: Settings

    @classmethod
    def drawn(cls, seed: str, slots: bool) -> Plan:
        rng = random.Random(seed)
        exact = not slots and rng.random() < 0.4
        may = load().HOSTILE_EXACT if exact else 0
        may |= load().HOSTILE_BALLOON * (rng.random() < 0.6)
        may |= load().HOSTILE_STRADDLE * (not exact and rng.random() < 0.15)
        flavour = rng.choice(("4.17", "4.17", "4.20", "4.20", "v7"))
        tables = rng.choice((4, 8, 16, 40, 100))
        return cls(
            seed=seed,
            flavour=flavour,
            vcpus=SLOTS if slots else 1 if exact else rng.choice((1, 2, 4, 16, 64)),
            frames=rng.choice((256, 1024, 1400, 2600)),
            tables=tables,
            roots=min(rng.choice((1, 2, 4, 8)), tables),
            may=may,
            rep_stores=rng.random() < 0.2,
            settings=Settings(
                generation=rng.choice((8, 9)),
                sync=rng.choice((Sync.STRICT, Sync.RELAXED)),
                max_tables=rng.choice((2, 8, 40, 1000, 65536)),
                max_spaces=rng.choice((2, 12, 12, 40)),
                max_mapped_chunks=rng.choice((2, 3, 1024)),
            ),
        )

    def __str__(self) -> str:
        return (
            f"{self.flavour}, {self.vcpus} vCPUs, {self.frames} frames, {self.tables} tables, may {self.may}, "
            f"{self.settings.sync.value}, quota {self.settings.max_tables}"
        )


class Round:
    """A domain with a hostile guest, and a device model on it."""

    def __init__(self, plan: Plan, done: Done) -> None:
        self.plan = plan
        self.done = done
        self.rng = random.Random(f"{plan.seed} operator")
        self.lib = load()
        self.owned = bytearray([OWNED]) * plan.frames
        self.owned[-FOREIGN:] = bytes(FOREIGN)
        self.log: Any = FFI.new("hostile_write[]", _LOG)
        exact = plan.may & self.lib.HOSTILE_EXACT
        self.model: Any = FFI.new("uint8_t[]", plan.frames * 4096) if exact else None
        self._owned_view = FFI.from_buffer("uint8_t[]", self.owned)
        self.domain = EmbeddedDomain(
            plan.frames,
            plan.vcpus,
            plan.flavour,
            holes=[(plan.frames - FOREIGN, FOREIGN)],
            rep_stores=plan.rep_stores,
        )
        self.guest: Any = FFI.new(
            "hostile_guest *",
            {
                "run": FFI.cast("void *", int(embedded_ffi.cast("uintptr_t", _run_function()))),
                "domain": FFI.cast("void *", int(embedded_ffi.cast("uintptr_t", self.domain.handle))),
                "frames": plan.frames,
                "bar0": plan.settings.bar0,
                "vcpus": plan.vcpus,
                "tables": plan.tables,
                "may": plan.may,
                "roots": plan.roots,
                "first_foreign": plan.frames - FOREIGN,
                "owned": self._owned_view,
                "model": self.model or FFI.NULL,
                "log_size": _LOG,
                "log": self.log,
            },
        )
        self.states: Any = FFI.new("hostile_vcpu[]", plan.vcpus)
        for vcpu in range(plan.vcpus):
            self.states[vcpu].seed = self.rng.getrandbits(64)
            self.states[vcpu].id = vcpu
        self.registers = Registers(plan.settings.generation, plan.settings.max_spaces)
        self.port = OwnedPort(self.domain, self.owned)
        self.judge = Judge(self.domain, self.port, self.owned, self.rng)
        self._over = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._running = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        self.guest.stop = 1
        self.domain.destroy()
        with contextlib.suppress(Exception):
            self.domain.join(PATIENCE)
        for port in list(self.domain.ports):
            port.close()
        os.close(self._over)

    # The guest

    def begin(self, stores: int) -> None:
        """Have every vCPU make its part of so many stores."""
        self.guest.stop = 0
        self._running = self.plan.vcpus
        for vcpu in range(self.plan.vcpus):
            self.domain.start(vcpu, lambda cpu: self._program(cpu, max(1, stores // self.plan.vcpus)))

    def _program(self, vcpu: Vcpu, stores: int) -> None:
        try:
            rc = self.lib.hostile_run(self.guest, vcpu.index, self.states + vcpu.index, stores)
            vcpu._raise(rc)
        finally:
            with self._lock:
                self._running -= 1
                last = not self._running
            if last:
                os.eventfd_write(self._over, 1)

    def serve(self, instance: Instance) -> None:
        """Serve until every vCPU has done its part, and do what operators do now and then."""
        poll = select.poll()
        poll.register(instance.server.port.events.fd, select.POLLIN)
        poll.register(self._over, select.POLLIN)
        number = 0
        while True:
            ready = poll.poll(PATIENCE * 1000)
            judge(bool(ready), "the vCPUs do nothing any more")
            serve_all(instance.loop)
            number += 1
            if number % 512 == 0:
                self._operate(instance)
            if any(fd == self._over for fd, _ in ready):
                os.eventfd_read(self._over)
                serve_all(instance.loop)
                return

    def _operate(self, instance: Instance) -> None:
        engine, rng = instance.engine, self.rng
        self.done.tally["acts of an operator"] += 1
        spaces = engine.spaces
        what = rng.random()

        def done(work: Steps[Any]) -> Any:
            return instance.loop.complete(work)

        if what < 0.7 and spaces:
            space = rng.choice(spaces)
            steps = engine.submit(space.mode, space.roots)
            if steps is not None:
                done(steps)
        elif what < 0.8:
            done(engine.settle())
            instance.traps.unprotect_deferred()
        elif what < 0.9 and spaces:
            space = rng.choice(spaces)
            synced = done(engine.sync(space))
            found = done(engine.audit(space))
            judge(found.mismatches == 0, f"an audit of {space.roots} finds {found}, {synced}")
        elif what < 0.97:
            done(engine.set_sync_mode(rng.choice((Sync.STRICT, Sync.RELAXED))))
        else:
            done(engine.quiesce())
            serve_all(instance.loop)
            done(engine.resume())

    def over(self) -> None:
        """Every vCPU has done its part. Raises what its program raised."""
        judge(self.domain.join(PATIENCE), "a vCPU waits for ever")
        for state in self.states:
            judge(not state.misread, f"a vCPU read {state.misread} times what it had not stored")

    def noted(self) -> Registers:
        """The registers after what the guest has written since the last call."""
        for write in self.log[0 : self.guest.writes]:
            self.registers.mmio(write.offset, write.size, write.value)
        self.guest.writes = 0
        return self.registers

    def count(self, trapped: int) -> None:
        tally = self.done.tally
        for what in ("stores", "loads", "registers", "balloons", "faults"):
            tally[what] += sum(getattr(state, what) for state in self.states)
        tally["trapped"] += trapped
        tally["spaces compared"] += self.judge.spaces_compared
        tally["tables compared"] += self.judge.tables_compared

    # The two kinds of rounds

    def stores(self, parts: int, stores: int) -> None:
        """vCPUs store, part after part, and in the end while the device model stops."""
        with contextlib.ExitStack() as stack:
            instance = stack.enter_context(open_instance(self.port, self.plan.settings))
            for _ in range(parts):
                self.begin(stores)
                self.serve(instance)
                self.over()
                self.judge.look(instance, self.noted(), self.model)
            self.begin(stores)
            while self.rng.random() < 0.9:
                serve_all(instance.loop)
            counters = instance.engine.counters
            trapped = counters.store_traps + counters.mmio_traps
        # The device model is gone, and nobody answers registers; but every store to memory goes on.
        judge(not self.domain.protected(), f"frames {self.domain.protected()[:5]} trap, and nobody serves")
        self.over()
        self.judge.frames_that_are_lost()
        self.judge.memory(self.model)
        self.judge.faults()
        self.count(trapped)

    def slots(self, looks: int, pages: int) -> None:
        """The slots hold whatever fits into them."""
        posted = FFI.new("uint8_t[]", SLOTS)
        seed = FFI.new("uint64_t *", self.rng.getrandbits(64))
        with open_instance(self.port, self.plan.settings) as instance:
            port = self.domain.port()
            slots = FFI.cast("hostile_slot *", port.map_slots(instance.server.id))
            for _ in range(looks):
                for _ in range(pages):
                    self.done.tally["slots"] += self.lib.hostile_fill(self.guest, slots, SLOTS, seed, posted)
                    with self._scribbling(slots, seed):
                        instance.loop._look()
                        while instance.loop.busy:
                            instance.loop.take_turns()
                            self.lib.hostile_take(slots, SLOTS, posted)
                    wrong = self.lib.hostile_answered(slots, SLOTS, posted)
                    judge(wrong < 0, f"slot {wrong}, posted in state {posted[max(wrong, 0)]}, is not answered")
                    instance.server.port.events.drain()
                    if self.rng.random() < 0.1:
                        self._operate(instance)
                self.judge.look(instance, None, None)
            port.close()
        judge(not self.domain.protected(), "frames trap, and nobody serves")
        self.judge.frames_that_are_lost()
        self.judge.faults()
        self.done.tally["spaces compared"] += self.judge.spaces_compared
        self.done.tally["tables compared"] += self.judge.tables_compared

    @contextlib.contextmanager
    def _scribbling(self, slots: Any, seed: Any) -> Iterator[None]:
        """For the time of the block, a thread changes the requests while they are served; for some of the times."""
        if self.rng.random() > 0.2:
            yield
            return
        self.guest.stop = 0
        thread = threading.Thread(target=self.lib.hostile_scribble, args=(self.guest, slots, SLOTS, seed[0]))
        thread.start()
        try:
            yield
        finally:
            self.guest.stop = 1
            thread.join()


def _run_function() -> Any:
    return embedded_ffi.addressof(embedded, "xd_emb_run")


def one_round(seed: int, number: int, slots: bool, done: Done, *, stores: int = STORES, pages: int = PAGES) -> None:
    """A round. Raises WrongError, or whatever the device model raises."""
    plan = Plan.drawn(f"{seed} {number} {'slots' if slots else 'stores'}", slots)
    play = Round(plan, done)
    try:
        if slots:
            play.slots(4, pages)
        else:
            play.stores(PARTS, stores)
    except DomainCrashedError as crash:
        if not (plan.may & play.lib.HOSTILE_STRADDLE and KNOWN_CRASH in str(crash)):
            raise WrongError(f"{plan}: {crash}") from crash
        done.tally["known crashes"] += 1
    except WrongError as error:
        raise WrongError(f"{plan}: {error}") from error
    finally:
        play.close()
    done.tally["rounds"] += 1


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign: 0 if nothing was wrong, 1 if something was."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.campaign", description="A hostile guest, for long.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60, help="no round begins after so many")
    parser.add_argument("--stores", type=float, default=1e8, help="enough stores")
    parser.add_argument("--slots", type=float, default=1e6, help="enough requests in slots")
    parser.add_argument("--round", metavar="N:KIND", help="that one alone, as NUMBER:stores or NUMBER:slots")
    options = parser.parse_args(arguments)
    done, start, told = Done(), time.monotonic(), 0.0
    if options.round:
        number, _, kind = options.round.partition(":")
        one_round(options.seed, int(number), kind == "slots", done)
        print(done)
        return 0
    number = 0
    while time.monotonic() - start < options.seconds:
        stored, slotted = done.tally["stores"] / options.stores, done.tally["slots"] / options.slots
        if min(stored, slotted) >= 1:
            break
        slots = slotted < stored
        try:
            one_round(options.seed, number, slots, done)
        except BaseException:
            print(
                f"seed {options.seed}, --round {number}:{'slots' if slots else 'stores'}; until then: {done}",
                flush=True,
            )
            raise
        number += 1
        if time.monotonic() - told >= 20:
            told = time.monotonic()
            print(f"{told - start:,.0f} s: {done}", flush=True)
    print(f"seed {options.seed}, {time.monotonic() - start:,.0f} s: {done}; nothing was wrong", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
