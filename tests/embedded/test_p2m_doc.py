"""docs/p2m.md says what the code does."""

from __future__ import annotations

import re

from tests.support.p2m_doc import DOCUMENT, TABLES, render


def test_the_tables_are_those_of_the_data() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert render(text) == text, "after a change to the data: python -m tests.support.p2m_doc"


def test_every_table_is_there() -> None:
    assert sorted(re.findall(r"<!-- table: (\w+) -->", DOCUMENT.read_text("utf-8"))) == sorted(TABLES)
