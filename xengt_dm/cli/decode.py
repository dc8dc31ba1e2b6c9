"""``xengt-dm decode``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

import click

from xengt_dm.cli.client import ask_and_show, json_option, parse_va
from xengt_dm.cli.run_dir import run_dir_option
from xengt_dm.cli.types import Domid, Integer
from xengt_dm.control.json_stream import LazyList, json_pieces
from xengt_dm.errors import DataError, UsageError
from xengt_dm.vgpu import error_state
from xengt_dm.vgpu.commands import ENGINES
from xengt_dm.vgpu.decode import (
    DEFAULT,
    Flat,
    Item,
    Kind,
    Limits,
    Nothing,
    Ring,
    decode_batch,
    decode_image,
    decode_ring,
)
from xengt_dm.vgpu.listing import Section, lines, values
from xengt_dm.vgpu.register_names import register_names

#: A file with more is not read.
MOST_BYTES: Final = 64 << 20
_KINDS: Final = {"batch": Kind.BATCH, "ring": Kind.RING, "image": Kind.IMAGE}


@click.command("decode")
@click.argument("source", metavar="FILE|DOMAIN")
@click.argument("engine", type=click.Choice(ENGINES), required=False)
@click.option(
    "--as",
    "kind",
    type=click.Choice(list(_KINDS)),
    default="batch",
    show_default=True,
    help="What the dwords of FILE are.",
)
@click.option("--address", callback=parse_va, default="0", help="The GPU address of the first dword of FILE.")
@click.option("--head", type=Integer(min=0), default=0, help="Of a ring in FILE: where to begin, in bytes.")
@click.option("--tail", type=Integer(min=0), help="Of a ring in FILE: where to end. By default, at its end.")
@click.option("--whole", is_flag=True, help="Of a domain, the whole ring, executed or not.")
@click.option(
    "--dwords",
    type=Integer(min=1, max=1 << 24),
    default=DEFAULT.dwords,
    show_default=True,
    help="Decode at most so many dwords of an engine.",
)
@run_dir_option
@json_option
def command(
    source: str,
    engine: str | None,
    kind: str,
    address: int,
    head: int,
    tail: int | None,
    whole: bool,
    dwords: int,
    base: Path,
    as_json: bool,
) -> None:
    """Show the commands of a GPU's engine by their names and fields.

    Of FILE, which has dwords as the GPU has them in memory, or is what i915 kept of a hang: /sys/class/drm/card0/error
    of the guest. FILE may be `-`, which is standard input. Of DOMAIN, a domain's id, what its engines execute now: the
    ring from head to tail, the batch and the context; ENGINE chooses one. A file whose name is a number is named ./7.

    Nothing is executed or changed. A batch is followed wherever its memory is at hand.
    """
    if source.isascii() and source.isdecimal():
        domid = Domid().convert(source, None, None)
        arguments: dict[str, object] = {"whole": whole, "dwords": dwords}
        if engine is not None:
            arguments["engine"] = engine
        ask_and_show(base, domid, "decode", as_json, _show_answer, **arguments)
        return
    data = _read(source)
    limits = Limits(dwords)
    if error_state.is_error_state(data):
        captures = error_state.parse(data.decode("ascii", "replace").split("\n"))
        chosen = [capture for capture in captures if engine in (None, capture.engine)]
        if not chosen:
            raise DataError(f"{source} says nothing of {engine or 'an engine that is known'}")
        sections = error_state.sections(chosen, limits)
    else:
        if len(data) % 4:
            click.echo(f"xengt-dm: {source}: the last {len(data) % 4} bytes are no dword", err=True)
        end = len(data) if tail is None else tail
        items = _items(_KINDS[kind], engine or ENGINES[0], data, address, (head, end), limits)
        sections = iter([Section("", items)])
    _show(_told(sections), as_json)


def _read(source: str) -> bytes:
    try:
        if source == "-":
            data = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with open(source, "rb") as file:
                data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror or error}") from error
    if len(data) > MOST_BYTES:
        raise DataError(f"{source} has more than {MOST_BYTES >> 20} MiB")
    if not data:
        raise DataError(f"{source} is empty")
    return data


def _items(kind: Kind, engine: str, data: bytes, address: int, part: tuple[int, int], limits: Limits) -> Iterator[Item]:
    if kind is Kind.RING:
        return decode_ring(engine, Ring(data, address, *part), Nothing(), limits)
    if kind is Kind.IMAGE:
        return decode_image(engine, data, address)
    if address % 4:
        raise UsageError(f"--address {address:#x} is no multiple of 4")
    return decode_batch(engine, Flat(data, address), True, address, limits)


def _told(sections: Iterable[Section]) -> Iterator[dict[str, Any]]:
    """As a daemon answers; the commands are made when they are asked for."""
    names = register_names()
    for section in sections:
        commands = (values(item, names) for item in section.items)
        yield {"title": section.title, "marks": section.named_marks, "commands": commands}


def _show(sections: Iterator[dict[str, Any]], as_json: bool) -> None:
    if not as_json:
        _show_sections(sections)
        return
    lazy = ({**section, "commands": LazyList(section["commands"])} for section in sections)
    for piece in json_pieces({"sections": LazyList(lazy)}):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def _show_answer(answer: Mapping[str, Any]) -> None:
    _show_sections(iter(answer["sections"]))


def _show_sections(sections: Iterator[Mapping[str, Any]]) -> None:
    for number, section in enumerate(sections):
        marks = {(space, address): text for space, address, text in section["marks"]}
        heading = [section["title"]] if section["title"] else []
        for line in chain(["", *heading] if number else heading, lines(section["commands"], marks)):
            click.echo(line)
