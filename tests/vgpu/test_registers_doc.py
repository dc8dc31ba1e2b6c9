"""docs/registers.md has the tables of the rows."""

from __future__ import annotations

import os
import re
from pathlib import Path

from xengt_dm.vgpu.markdown import tables
from xengt_dm.vgpu.pci import rows
from xengt_dm.vgpu.registers.skylake import REGISTERS

ENGINES = ("rcs0", "bcs0", "vcs0", "vecs0")
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "registers.md"
TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->\n)", re.DOTALL)


def rendered(text: str) -> str:
    made = tables()
    return TABLE.sub(lambda match: match[1] + made[match[2]] + match[3], text)


def test_the_tables_are_those_of_the_rows() -> None:
    text = DOCUMENT.read_text()
    if os.environ.get("XENGT_WRITE"):
        DOCUMENT.write_text(rendered(text))
    assert rendered(text) == text, "XENGT_WRITE=1 tests/run unit vgpu writes them anew"
    assert sorted(found[1] for found in TABLE.findall(text)) == sorted(tables())


def test_every_register_is_in_a_table() -> None:
    text = "".join(tables().values())
    for row in (*REGISTERS, *rows(16 << 20)):
        name = row.name.partition(".")[2] if row.block in ENGINES and "." in row.name else row.name
        stem = re.escape(name.rstrip("0123456789"))
        assert re.search(rf"`(\w+\.)?({re.escape(name)}|{stem}\d+\.\.\d+)`", text), row.name
