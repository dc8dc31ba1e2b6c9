"""The control protocol's text: hostile requests in, replies out in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xengt_dm.control.json_stream import SLICE, LazyList, LazyObject
from xengt_dm.control.protocol import (
    EXIT_CODES,
    REQUEST_LIMIT,
    ErrorCode,
    LineBuffer,
    RefusedError,
    Request,
    error_code,
    error_line,
    parse_request,
    reply_pieces,
    request_line,
)
from xengt_dm.errors import ConfigError, DataError, ExitCode, GuestError, HostError, UsageError

#: The same cases each time, and no limit of time that a busy machine could break.
SAME = settings(derandomize=True, deadline=None)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)


def refusal(line: bytes) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        parse_request(line)
    return caught.value


def test_a_request_is_its_command_and_the_other_keys() -> None:
    assert parse_request(b'{"v": 2, "cmd": "walk", "va": 4096}') == Request("walk", {"va": 4096}, 2)


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        (b'{"v": 1, "cmd": "walk", "va": 1}', {"va": 1, "sync": True}),
        (b'{"v": 1, "cmd": "dump"}', {"sync": True}),
        (b'{"v": 1, "cmd": "audit"}', {"sync": True}),
        (b'{"v": 1, "cmd": "audit", "sync": false}', {"sync": False}),
        (b'{"v": 2, "cmd": "audit"}', {}),
        (b'{"v": 1, "cmd": "spaces"}', {}),
        (b'{"v": 1, "cmd": "protected"}', {}),
    ],
)
def test_readers_sync_where_the_first_version_of_the_protocol_said_so(line: bytes, arguments: dict[str, Any]) -> None:
    request = parse_request(line)
    assert (request.version, request.arguments) == (json.loads(line)["v"], arguments)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", ErrorCode.MALFORMED),
        (b"status", ErrorCode.MALFORMED),
        (b"\xff\xfe", ErrorCode.MALFORMED),
        (b'{"v": 1, "cmd": "status"', ErrorCode.MALFORMED),
        (b"[1, 2]", ErrorCode.MALFORMED),
        (b'{"v": 1}', ErrorCode.MALFORMED),
        (b'{"v": 1, "cmd": 7}', ErrorCode.MALFORMED),
        (b'{"v": 1, "cmd": "walk", "cmd": "stop"}', ErrorCode.MALFORMED),
        (b'{"v": 1, "cmd": "walk", "va": NaN}', ErrorCode.MALFORMED),
        (b'{"v": 1, "cmd": "walk", "va": -Infinity}', ErrorCode.MALFORMED),
        (b"[" * 60000, ErrorCode.MALFORMED),
        (b'{"a":' * 10000, ErrorCode.MALFORMED),
        (b'{"v": 1, "cmd": "walk", "va": ' + b"9" * 60000 + b"}", ErrorCode.MALFORMED),
        (b'{"cmd": "status"}', ErrorCode.VERSION),
        (b'{"v": 0, "cmd": "status"}', ErrorCode.VERSION),
        (b'{"v": 3, "cmd": "status"}', ErrorCode.VERSION),
        (b'{"v": true, "cmd": "status"}', ErrorCode.VERSION),
        (b'{"v": "1", "cmd": "status"}', ErrorCode.VERSION),
    ],
)
def test_what_is_no_request_is_refused(line: bytes, code: ErrorCode) -> None:
    assert refusal(line).code == code


@SAME
@given(st.binary(max_size=300))
def test_bytes_are_a_request_or_refused(line: bytes) -> None:
    try:
        parse_request(line)
    except RefusedError as error:
        json.loads(error_line(error.code, str(error)))


@SAME
@given(JSON)
def test_json_is_a_request_or_refused(value: object) -> None:
    try:
        parse_request(json.dumps(value).encode())
    except RefusedError as error:
        json.loads(error_line(error.code, str(error)))


@SAME
@given(st.text(max_size=20), st.dictionaries(st.text(max_size=8).filter(lambda key: key not in ("v", "cmd")), JSON))
def test_a_request_survives_the_wire(command: str, arguments: dict[str, Any]) -> None:
    assert parse_request(request_line(command, arguments)) == Request(command, arguments)


def test_a_request_too_long_is_not_sent() -> None:
    with pytest.raises(UsageError):
        request_line("walk", {"va": "x" * REQUEST_LIMIT})


@SAME
@given(st.lists(st.binary(max_size=9).filter(lambda line: b"\n" not in line), max_size=8), st.data())
def test_lines_come_out_however_the_stream_is_cut(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    buffer, found = LineBuffer(limit=10), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        buffer.feed(stream[:cut])
        stream = stream[cut:]
        while (line := buffer.take()) is not None:
            found.append(line)
    assert found == lines
    assert buffer.take(at_end=True) is None


def test_what_is_left_at_the_end_is_a_line() -> None:
    buffer = LineBuffer(limit=10)
    buffer.feed(b"one\ntwo")
    assert (buffer.take(), buffer.take(), buffer.take(at_end=True)) == (b"one", None, b"two")
    assert buffer.take(at_end=True) is None


@pytest.mark.parametrize("data", [b"x" * 10, b"x" * 10 + b"\n", b"x" * 11])
def test_a_line_over_the_limit_is_refused(data: bytes) -> None:
    buffer = LineBuffer(limit=10)
    buffer.feed(data)
    with pytest.raises(RefusedError) as caught:
        buffer.take()
    assert caught.value.code == ErrorCode.TOO_LARGE


def test_a_line_at_the_limit_is_good() -> None:
    buffer = LineBuffer(limit=10)
    buffer.feed(b"x" * 9 + b"\n")
    assert buffer.take() == b"x" * 9


def whole(result: object) -> Any:
    line = b"".join(reply_pieces(result))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return json.loads(line)


@SAME
@given(JSON)
def test_a_reply_says_what_json_would(result: object) -> None:
    assert whole(result) == {"v": 2, "ok": True, "result": result}
    assert json.loads(b"".join(reply_pieces(result, 1))) == {"v": 1, "ok": True, "result": result}


@pytest.mark.parametrize("count", [0, 1, SLICE, SLICE + 1, 3 * SLICE, 3 * SLICE + 7])
def test_a_long_list_is_whole(count: int) -> None:
    rows = [(row, row + 1) for row in range(count)]
    assert whole({"rows": rows})["result"] == {"rows": [list(row) for row in rows]}


def test_no_piece_of_a_long_list_is_long() -> None:
    row = [2**47, 4096, 2**40, 1, 7]
    assert max(map(len, reply_pieces([row] * 100_000))) < 64 * 1024


def test_lazy_parts_are_made_in_turn() -> None:
    made: list[int] = []

    def elements() -> Iterator[object]:
        for number in range(3):
            made.append(number)
            yield {"number": number, "empty": LazyList(iter(()))}

    members: Iterator[tuple[str, object]] = (
        (name, LazyList(elements()) if name == "all" else len(made)) for name in ("before", "all", "after")
    )
    pieces = reply_pieces(LazyObject(members))
    next(pieces)
    assert made == []
    elements_of = json.loads(b'{"result": ' + b"".join(pieces))["result"]
    assert elements_of == {"before": 0, "all": [{"number": n, "empty": []} for n in range(3)], "after": 3}


def test_an_empty_lazy_object_is_an_object() -> None:
    assert whole(LazyObject(iter(())))["result"] == {}


def test_each_error_of_a_handler_has_a_code() -> None:
    assert error_code(UsageError("x")) == ErrorCode.USAGE
    assert error_code(DataError("x")) == ErrorCode.DATA
    assert error_code(ConfigError("x")) == ErrorCode.DATA
    assert error_code(HostError("call", 1, 12)) == ErrorCode.HOST
    assert error_code(HostError("call", 1, 1)) == ErrorCode.PERMISSION
    assert error_code(GuestError("reason", "x")) == ErrorCode.HOST
    assert error_code(RefusedError(ErrorCode.BUSY, "x")) == ErrorCode.BUSY
    assert error_code(RefusedError("of a newer version", "x")) == ErrorCode.HOST


def test_each_code_has_an_exit_status() -> None:
    assert set(EXIT_CODES) == set(ErrorCode)
    assert RefusedError(ErrorCode.USAGE, "x").exit_code is ExitCode.USAGE
    assert RefusedError("of a newer version", "x").exit_code is ExitCode.UNAVAILABLE
