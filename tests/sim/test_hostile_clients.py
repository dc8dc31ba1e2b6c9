"""Clients of a sim that hold what others need: each of them may be a device model that its guest took over."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.sim import Console, ConsoleError, SimProcess
from xengt_dm.errors import DomainGoneError, ExitCode, HostError
from xengt_dm.hypervisor.sim.connection import socket_path
from xengt_dm.hypervisor.sim.messages import VERSION, Call, pack
from xengt_dm.sim.listener import MOST_CONNECTIONS
from xengt_dm.sim.process import console_path


def raw(sim: SimProcess, path: Path | None = None) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(str(path or socket_path(sim.directory, sim.domid)))
    return connection


def test_no_room_for_another_client(sim: SimProcess, base: Path) -> None:
    """That is not the end of the domain: a daemon ends with a status after which it is started again."""
    with ExitStack() as held:
        for _ in range(MOST_CONNECTIONS):
            held.enter_context(raw(sim))
        with pytest.raises(HostError) as caught:
            sim.port()
        assert not isinstance(caught.value, DomainGoneError)
        assert caught.value.errno == errno.EUSERS
        daemon = sim.serve(base)
        said = daemon.process.communicate(timeout=60)[1]
        assert daemon.process.returncode == ExitCode.UNAVAILABLE, said
        daemon.__exit__()
    with sim.serve(base) as daemon:
        assert daemon.stop()[0] == ExitCode.OK


def test_no_room_at_the_console(sim: SimProcess) -> None:
    with ExitStack() as held:
        for _ in range(MOST_CONNECTIONS):
            held.enter_context(raw(sim, console_path(sim.directory, sim.domid)))
        with sim.console() as console, pytest.raises(ConsoleError, match="64 connections"):
            console.receive()


def test_a_client_that_makes_the_file_of_frames_larger(sim: SimProcess, console: Console) -> None:
    """The file can then not be cut again; a frame that is given back while it is mapped takes a new place in it."""
    with raw(sim) as connection:
        connection.send(pack([Call.HELLO, VERSION]))
        _, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 4)
        os.ftruncate(descriptors[0], 1 << 40)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(pack([Call.GET_FRAMES, 5, 1]))
        connection.recv(4096)
        console.run(0, "remove", 5, 1)
        console.run(0, "add", 5, 1)
        console.run(0, "store", 5 * 4096, 8, 7)
        assert console.run(0, "load", 5 * 4096, 8) == 7
