"""The messages between a device model and the sim, without either."""

from __future__ import annotations

import pytest

from xengt_dm.hypervisor.sim.messages import (
    ARGUMENTS,
    LISTS,
    MOST_BYTES,
    MOST_ELEMENTS,
    WORD_MAX,
    Call,
    MessageError,
    pack,
    pack_failure,
    parse_failure,
    parse_request,
    unpack,
)


def test_every_call_says_how_many_arguments_it_has() -> None:
    assert set(ARGUMENTS) == set(Call)


@pytest.mark.parametrize("call", Call)
def test_a_request_comes_out_as_it_went_in(call: Call) -> None:
    arguments = tuple(range(ARGUMENTS[call] + (call in LISTS)))
    assert parse_request(pack([call, *arguments])) == (call, arguments)


@pytest.mark.parametrize("call", Call)
def test_every_beginning_of_a_request_is_refused(call: Call) -> None:
    message = pack([call, *range(ARGUMENTS[call] + (call in LISTS))])
    for length in range(len(message)):
        with pytest.raises(MessageError):
            parse_request(message[:length])
    if call not in LISTS:
        with pytest.raises(MessageError):
            parse_request(message + bytes(8))


@pytest.mark.parametrize("call", LISTS)
def test_the_longest_list_fits_and_a_longer_one_is_refused(call: Call) -> None:
    longest = [call, *range(ARGUMENTS[call]), *range(MOST_ELEMENTS)]
    assert len(pack(longest)) <= MOST_BYTES
    assert parse_request(pack(longest))[0] is call
    with pytest.raises(MessageError, match="elements"):
        parse_request(pack([*longest, 0]))


@pytest.mark.parametrize("word", [-1, WORD_MAX + 1])
def test_what_is_no_word_cannot_be_packed(word: int) -> None:
    with pytest.raises(MessageError):
        pack([word])


def test_a_number_that_no_call_has() -> None:
    with pytest.raises(MessageError, match="no call"):
        parse_request(pack([999]))


def test_an_answer_of_a_failure() -> None:
    answer = pack_failure(22, "a call", "what it means")
    assert parse_failure(answer) == (22, "a call", "what it means")
    assert len(pack_failure(22, "a call", "x" * MOST_BYTES)) == MOST_BYTES


def test_an_answer_of_a_success() -> None:
    assert parse_failure(pack([0, 7])) is None
    assert unpack(pack([0, 7])) == (0, 7)
