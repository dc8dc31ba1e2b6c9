"""The operator in a storm, and its stand-in for the GPU: commands at any moment, and what must be true after them."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.storm.world import GPU_DATA, GPU_ENTRIES, GPU_LEAF, GPU_ROOT
from tests.support.sim import PATIENCE
from tests.support.tables import FRAME, address, pte
from xengt_dm.control.protocol import SOCKET_NAME, request_line
from xengt_dm.control.socket import connect

_VA_OF_LEAF = 1 << 21


class Asked(NamedTuple):
    """A command that was sent, and the connection on which its answer comes."""

    command: str
    arguments: Mapping[str, Any]
    connection: socket.socket


class Operator:
    """Draws commands. A command whose daemon died before it answered may have taken effect or not."""

    def __init__(self, rng: random.Random, directory: Path, traces: Path) -> None:
        self._rng = rng
        self._directory = directory
        self._traces = traces
        self._recordings = 0
        self.modes = {"strict"}
        self.quiesced = {False}
        #: By gpa: what the GPU's stores may have left there.
        self.stored: dict[int, set[int]] = {}
        #: How many commands were answered, and how many not.
        self.answered = self.unanswered = 0
        #: Whether the daemon was told to leave its domain to a successor, and may end by itself.
        self.upgrades = False

    def draw(self) -> tuple[str, dict[str, Any]]:
        """Some command, with its arguments."""
        rng = self._rng
        command = rng.choices(
            (
                *("mode", "quiesce", "resume", "record", "stop_record", "audit"),
                *("dump", "spaces", "status", "gpu_store", "upgrade"),
            ),
            (4, 2, 4, 2, 1, 2, 1, 1, 1, 8, 2),
        )[0]
        match command:
            case "mode":
                return command, {"mode": rng.choice(("strict", "relaxed"))}
            case "record":
                self._recordings += 1
                return command, {"file": str(self._traces / f"{self._recordings % 4}.trace")}
            case "stop_record":
                return "record", {"stop": True}
            case "audit" | "dump":
                return command, {"sync": rng.random() < 0.7}
            case "gpu_store":
                va, _, value = self._gpu_target()
                return command, {"root": GPU_ROOT * FRAME, "va": va, "value": value}
        return command, {}

    def _gpu_target(self) -> tuple[int, int, int]:
        """A GPU address of the GPU's space, its gpa, and a value to store there."""
        rng = self._rng
        if rng.random() < 0.5:
            slot, at = rng.randrange(len(GPU_DATA)), 8 * rng.randrange(8)
            return slot * FRAME + at, GPU_DATA[slot] * FRAME + at, rng.getrandbits(64)
        entry = rng.choice(GPU_ENTRIES)
        return _VA_OF_LEAF + 8 * entry, address(GPU_LEAF, entry), pte(rng.choice(GPU_DATA))

    def send(self, command: str, arguments: Mapping[str, Any]) -> Asked | None:
        """Send a command; None if nobody takes it. What it may change from now on counts as possible."""
        try:
            connection = connect(self._directory / SOCKET_NAME, PATIENCE)
        except OSError:
            return None
        with suppress(OSError):
            connection.sendall(request_line(command, arguments))
        match command:
            case "upgrade":
                self.upgrades = True
            case "mode":
                self.modes |= {arguments["mode"]}
            case "quiesce":
                self.quiesced |= {True}
            case "resume":
                self.quiesced |= {False}
            case "gpu_store":
                self.stored.setdefault(_gpa(arguments["va"]), {0}).add(arguments["value"])
        return Asked(command, arguments, connection)

    def receive(self, asked: Asked) -> dict[str, Any] | None:
        """The whole reply to a command; None if the daemon ended before it was out."""
        reply = b""
        with asked.connection as connection:
            connection.settimeout(PATIENCE)
            while not reply.endswith(b"\n"):
                try:
                    data = connection.recv(1 << 18)
                except ConnectionError:
                    data = b""
                if not data:
                    self.unanswered += 1
                    return None
                reply += data
        self.answered += 1
        answer: dict[str, Any] = json.loads(reply)
        if answer["ok"]:
            self._took_effect(asked, answer["result"])
        return answer

    def ask(self, command: str, **arguments: Any) -> Any:
        """The result of a command that a daemon must answer. Raises AssertionError."""
        asked = self.send(command, arguments)
        assert asked is not None, f"no daemon takes {command}"
        answer = self.receive(asked)
        assert answer is not None, f"the daemon ended before it answered {command}"
        assert answer["ok"], f"{command} {arguments}: {answer}"
        return answer["result"]

    def _took_effect(self, asked: Asked, result: Any) -> None:
        match asked.command:
            case "mode":
                self.modes = {asked.arguments["mode"]}
            case "quiesce":
                self.quiesced = {True}
            case "resume":
                self.quiesced = {False}
            case "gpu_store":
                if result["stored"]:
                    self.stored[_gpa(asked.arguments["va"])] = {asked.arguments["value"]}


def _gpa(va: int) -> int:
    if va >= _VA_OF_LEAF:
        return GPU_LEAF * FRAME + va - _VA_OF_LEAF
    return GPU_DATA[va // FRAME] * FRAME + va % FRAME
