"""The commands for C: the same as the rows say, whatever the header."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import cffi
import pytest

from xengt_dm._core import ffi, lib
from xengt_dm.vgpu.command_table import CommandSet
from xengt_dm.vgpu.commands import COMMANDS, ENGINES, find

HEADERS = Path(__file__).resolve().parents[2] / "cffi_build/core/vgpu"
SEED = 20261129
SOURCE = """
#include "commands.h"
void look(const void *set, const uint32_t *headers, uint32_t count, uint32_t *found)
{
    for (uint32_t n = 0; n < count; n++, found += 5) {
        const xd_command *command = xd_command_of(set, headers[n]);
        found[0] = command->does;
        found[1] = xd_command_dwords(command, headers[n]);
        found[2] = command->least;
        found[3] = command->flags;
        found[4] = command->row;
    }
}
"""


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> cffi.FFI:
    """The look-up of the header, which is inline, in a library of its own."""
    folder = tmp_path_factory.mktemp("look")
    (folder / "look.c").write_text(SOURCE)
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{HEADERS}"]
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, *flags, "-o", str(folder / "look.so"), str(folder / "look.c")], check=True)
    own = cffi.FFI()
    own.cdef("void look(const void *set, const uint32_t *headers, uint32_t count, uint32_t *found);")
    library = own.dlopen(str(folder / "look.so"))

    def ask(commands: CommandSet, headers: list[int]) -> list[tuple[int, ...]]:
        found = own.new("uint32_t[]", 5 * len(headers))
        address = int(ffi.cast("uintptr_t", commands.pointer))
        library.look(own.cast("void *", address), own.new("uint32_t[]", headers), len(headers), found)
        return [tuple(found[5 * n : 5 * n + 5]) for n in range(len(headers))]

    return ask


@pytest.mark.parametrize("engine", ENGINES)
def test_c_finds_what_the_rows_say(engine: str, look: cffi.FFI) -> None:
    """Every opcode that there is, and random bits below it."""
    chance = random.Random(SEED)
    headers = [upper << 16 | chance.getrandbits(16) for upper in range(0, 1 << 16, 4 if engine != "rcs0" else 1)]
    headers += [row.match | chance.getrandbits(16) & ~row.mask for row in COMMANDS]
    for header, found in zip(headers, look(CommandSet(engine), headers), strict=True):
        command = find(engine, header)
        if command is None:
            assert found[:2] == (lib.XD_DO_ERROR, 1), hex(header)
            continue
        does = command.does if engine in command.engines else "nothing"
        row = next((n for n, row in enumerate(COMMANDS) if row == command), 0xFFFF)
        wanted = (getattr(lib, f"XD_DO_{does.upper()}"), command.length.of(header), command.least, command.privileged)
        assert found == (*wanted, row), (hex(header), command.name)


def test_a_header_that_the_prototypes_of_hangs_use_is_an_error(look: cffi.FFI) -> None:
    for engine in ENGINES:
        assert look(CommandSet(engine), [0xDEADBEEF, 0xFFFFFFFF, 0x20000000])[0][0] == lib.XD_DO_ERROR
