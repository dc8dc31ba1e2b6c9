"""Hypercalls over the socket: what is hostile or cut off harms nobody, and what a dead client had is dropped."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sim import PATIENCE, Console, SimProcess
from xengt_dm._core import ffi
from xengt_dm._core import lib as core
from xengt_dm._embedded import lib
from xengt_dm.errors import DomainGoneError, HostError
from xengt_dm.hypervisor.sim.connection import socket_path
from xengt_dm.hypervisor.sim.messages import (
    ARGUMENTS,
    ERRNO_BITS,
    LISTS,
    MOST_BYTES,
    WORD_MAX,
    Call,
    pack,
    parse_failure,
    unpack,
)
from xengt_dm.sim.listener import MOST_CONNECTIONS


@pytest.fixture
def sim(scripted_sim: SimProcess) -> Iterator[SimProcess]:
    """With no server, before the test and after it, and nobody that serves."""
    yield scripted_sim
    with scripted_sim.console() as console:
        assert console.state()["device_models"] == 0
    port = scripted_sim.port()
    for server in range(8):
        if port.server_exists(server):
            port.destroy_server(server)
    port.close()


def raw(sim: SimProcess) -> socket.socket:
    """A connection whose messages are the test's own."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(PATIENCE)
    connection.connect(str(socket_path(sim.directory, sim.domid)))
    return connection


def asked(connection: socket.socket, message: bytes) -> tuple[int, ...] | int:
    """The words of an answer, or its errno."""
    connection.send(message)
    answer, fds, _, _ = socket.recv_fds(connection, MOST_BYTES, 8)
    for fd in fds:
        os.close(fd)
    failed = parse_failure(answer)
    return unpack(answer) if failed is None else failed[0]


def valid(call: Call) -> bytes:
    return pack([call, *[1] * (ARGUMENTS[call] + 3 * (call in LISTS))])


@pytest.mark.parametrize("call", Call)
def test_a_client_that_dies_at_any_byte_of_a_message(sim: SimProcess, call: Call) -> None:
    message = valid(call)
    for cut in range(len(message) + 1):
        with raw(sim) as client:
            if cut:
                client.send(message[:cut])
    with raw(sim) as client:
        assert asked(client, pack([Call.VCPU_COUNT])) == (0, 2)


@pytest.mark.parametrize("call", Call)
def test_a_message_that_is_cut_off_is_answered_with_an_error(sim: SimProcess, call: Call) -> None:
    with raw(sim) as client:
        for cut in range(1, 8 * (1 + ARGUMENTS[call])):
            assert asked(client, valid(call)[:cut]) == errno.EPROTO
        assert asked(client, pack([Call.VCPU_COUNT])) == (0, 2)


def test_messages_of_random_words(sim: SimProcess) -> None:
    rng = random.Random(7)
    words = [0, 1, 2, 63, 64, 1 << 20, 1 << 31, 1 << 32, 1 << 63, WORD_MAX - 1, WORD_MAX]
    failed = 0
    with raw(sim) as client:
        for _ in range(3000):
            call = rng.choice([*Call, 0, 999])
            count = rng.choice([ARGUMENTS.get(call, 0), ARGUMENTS.get(call, 0) + 1, rng.randrange(6)])
            answer = asked(client, pack([call, *(rng.choice(words) for _ in range(count))]))
            failed += isinstance(answer, int)
        for _ in range(1000):
            failed += isinstance(asked(client, rng.randbytes(rng.randrange(1, 64))), int)
        assert asked(client, pack([Call.VCPU_COUNT])) == (0, 2)
    assert failed > 2000


def test_a_message_that_is_too_long(sim: SimProcess) -> None:
    with raw(sim) as client:
        assert asked(client, bytes(MOST_BYTES + 8)) == errno.EPROTO
        assert asked(client, pack([Call.VCPU_COUNT])) == (0, 2)


def test_references_that_a_client_does_not_have(sim: SimProcess) -> None:
    with raw(sim) as owner, raw(sim) as other:
        answer = asked(owner, pack([Call.GET_FRAMES, 62, 4]))
        assert isinstance(answer, tuple)
        word, _, hole, _ = answer[1:]
        assert hole == errno.EINVAL
        assert asked(other, pack([Call.PUT_FRAMES, word])) == errno.EINVAL
        assert asked(owner, pack([Call.PUT_FRAMES, word, hole, WORD_MAX])) == (0,)
        assert asked(owner, pack([Call.PUT_FRAMES, word])) == errno.EINVAL
        assert asked(owner, pack([Call.PUT_FRAMES, WORD_MAX << ERRNO_BITS & WORD_MAX])) == errno.EINVAL


def test_a_client_of_another_version(sim: SimProcess) -> None:
    with raw(sim) as client:
        assert asked(client, pack([Call.HELLO, 999])) == errno.EPROTO


def test_descriptors_that_nobody_asked_for(sim: SimProcess) -> None:
    with sim.console() as console:
        console.state()
        before = descriptors_of(sim)
        with raw(sim) as client:
            for _ in range(50):
                socket.send_fds(client, [pack([Call.VCPU_COUNT])], [0, 1, 2])
                assert unpack(client.recv(MOST_BYTES)) == (0, 2)
        console.state()
        assert descriptors_of(sim) == before


def descriptors_of(sim: SimProcess) -> int:
    return len(os.listdir(f"/proc/{sim.process.pid}/fd"))


def test_clients_that_come_and_go_leave_nothing(sim: SimProcess) -> None:
    def client() -> None:
        port = sim.port()
        server = port.create_server()
        port.map_slots(server)
        port.close()
        again = sim.port()
        again.destroy_server(server)
        again.close()

    with sim.console() as console:
        client()
        console.state()
        before = descriptors_of(sim), len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            client()
        console.state()
        assert (descriptors_of(sim), len(os.listdir("/proc/self/fd"))) == before


def test_more_clients_than_there_are_places_for(sim: SimProcess) -> None:
    clients = [raw(sim) for _ in range(MOST_CONNECTIONS)]
    for client in clients:
        assert asked(client, pack([Call.VCPU_COUNT])) == (0, 2)
    with raw(sim) as one_more:
        said = b"".join(iter(lambda: one_more.recv(1 << 10), b""))
        assert struct.unpack_from("<I", said)[0] == errno.EUSERS
    for client in clients:
        client.close()
    with sim.console() as console:
        console.state()
    with raw(sim) as client:
        assert asked(client, pack([Call.VCPU_COUNT])) == (0, 2)


def test_a_client_that_reads_no_answers_keeps_nobody_from_theirs(sim: SimProcess) -> None:
    with raw(sim) as deaf, raw(sim) as other:
        deaf.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                deaf.send(pack([Call.VCPU_COUNT]))
        assert asked(other, pack([Call.VCPU_COUNT])) == (0, 2)


def held(console: Console, vcpu: int, point: int) -> None:
    assert console.ask("hold", vcpu=vcpu, point=point) == 0


def test_a_client_that_dies_while_its_hypercall_waits(sim: SimProcess) -> None:
    """A pause waits for a vCPU that a test holds inside Xen. The hypercall ends after its caller.

    Its successor then finds the channel that it had bound free, however soon it asks.
    """
    with sim.console() as console, sim.console() as cpu:
        port = sim.port()
        server = port.create_server()
        page = ffi.cast("char *", port.map_slots(server))
        port.map_mmio(server, 0xF0000000, 0xF0000FFF)
        port.set_server_state(server, True)
        local = port.events.bind(core.xd_slot_port(page, 0))
        held(console, 0, lib.XD_POINT_POSTED)
        cpu.begin(0, "store", 0xF0000000, 8, 1)
        assert console.ask("wait_phase", vcpu=0, phase=lib.XD_PHASE_HELD, seconds=PATIENCE) == 0
        bind = pack([Call.BIND, core.xd_slot_port(page, 1)])
        with raw(sim) as client:
            assert asked(client, bind) == (0, 1)
            client.send(pack([Call.SET_SERVER_STATE, server, 1]))
        successor = raw(sim)
        successor.send(bind)
        with raw(sim) as later:
            later.send(pack([Call.VCPU_COUNT]))  # so that the successor's connection was accepted some time ago
            assert console.ask("progress") == {"fault": None}
        assert console.ask("unhold", vcpu=0) == 0
        answer, fds, _, _ = socket.recv_fds(successor, MOST_BYTES, 8)
        assert (unpack(answer), len(fds)) == ((0, 1), 1)
        os.close(fds[0])
        successor.close()
        lib.xd_slot_set_state(page, 0, core.XD_STATE_RESP_READY)
        port.events.notify(local)
        cpu.receive()
        port.events.unbind(local)
        port.close()


def test_a_sim_that_ends(tmp_path: Path) -> None:
    with SimProcess(tmp_path, "--guest", "scripted") as sim:
        port = sim.port()
        server = port.create_server()
        address = port.map_frames(0, 4, errors := ffi.new("int[]", 4))
        port.map_slots(server)
        sim.end(signal.SIGKILL)
        with pytest.raises(DomainGoneError):
            port.create_server()
        assert not port.server_exists(server)
        assert list(errors) == [0] * 4
        port.unmap_frames(address, 4)
        port.unmap_slots(server)
        port.close()
        port.close()


@pytest.mark.parametrize("number", [1 << 32, 1 << 64, -1])
def test_arguments_that_no_hypercall_takes(sim: SimProcess, number: int) -> None:
    port = sim.port()
    with pytest.raises(HostError) as caught:
        port.destroy_server(number)
    assert caught.value.errno == errno.EINVAL
    port.close()
