"""Words that the project no longer uses, and those that it uses instead: docs/glossary.md has the meanings.

The table below is data: what a word was, what it is today, regular expressions that find it, and a text in which they
must find it. Common English stays allowed: one may open a file, cover a case and learn a fact; the expressions look for
the retired senses only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lint.test_text import ROOT, files

#: Between two words: blanks, a line's end, or the underscore of an identifier.
W = r"[\s_]+"
#: A word begins, and ends, where no letter stands beside it; `_` may.
B, E = r"(?<![a-z])", r"(?![a-z])"
#: Up to so many words between two that belong together: "an entry that still waits".
GAP = rf"{W}((?!(import|for|in|if){E})[a-z]+{W}){{0,3}}"
#: What was opened, closed and adopted.
A_TABLE = r"((guest|shadow|leaf)[\s_]pages?|tables?|frames?|leaf|leaves|directories|shadows?)"
#: What may stand between it and "open".
_COPULA = "is|are|was|were|be|been|being|has|have|had|held|kept|stays?|remains?|left|may|not|still|now|already"
IS = rf"({W}(that|which|it|they|{_COPULA}))+"


@dataclass(frozen=True)
class Word:
    """``patterns`` are searched in lower case; one of them must find each of ``examples``.

    ``stem``: what every find has in it. It is searched first, because the patterns are slow.
    """

    retired: str
    today: str
    stem: str
    patterns: tuple[str, ...]
    examples: tuple[str, ...]


WORDS = (
    Word(
        "let go (of a frame, a reference, a vCPU)",
        "unprotect (a frame), unref (a table), release (a vCPU)",
        "let",
        (rf"{B}let(s|ting)?{GAP}go(es)?{E}(?!{W}on{E})",),
        ("lets the frame go", "xd_let_go(shadow)", "Let everything go", "letting go of", "lets its last frame go"),
    ),
    Word(
        "open, close (a table)",
        "unsync, resync",
        "open|clos",
        (
            rf"(?<!half-){B}(re)?open(s|ed|ing)?{GAP}{A_TABLE}{E}",
            rf"{B}open(s|ed|ing)?{W}((a|the){W})?(ones?|page){E}",
            rf"{B}(?!leaves{W}(that|it)){A_TABLE}{IS}{W}(open(ed)?|closed){E}|{B}page{IS}{W}opened{E}",
            rf"{B}(re)?clos(e|es|ed|ing){GAP}(?!leaves){A_TABLE}{E}|{B}clos(es|ed|ing){GAP}leaves{E}|close_leaves",
            rf"{B}open_(waiting|no_more|tries|before|after)|{B}to_open{E}|{B}(set|first|last)_open{E}",
        ),
        (
            *(
                "open_frame",
                "opens its leaf table",
                "the open ones",
                "a table that is open",
                "close_leaves",
                "OPEN_TRIES",
            ),
            *("opens leaves", "opening some of its directories", "the leaf was left open", "a frame that stays closed"),
            *("closes a leaf", "closing all tables", "the page is opened", "opens the page"),
        ),
    ),
    Word(
        "in line, out of line, bring in line",
        "in sync, out of sync, sync",
        "line",
        (
            rf"{B}out{W}of{W}line{E}|_in_line{E}",
            r"\b(bring(s|ing)?|brought|is|are|was|were|be|been|stays?|keeps?)\b[^.:;()\"']{0,60}?\sin\s+line\b(?! \d)",
        ),
        ("brought in line", "is by now in\nline", "out of line", "_bring_in_line("),
    ),
    Word(
        "cover, uncover (a frame)",
        "guard range, drop guard ranges",
        "cover",
        (
            rf"{B}uncover(s|ed|ing)?{E}",
            rf"{B}max_covers{E}|(?<!\w)_cover{E}",
            rf"{B}(an?|the|no|such|without|whose|as){W}covers?{E}(?!{W}(of|all))",
            rf"{B}(frames?|page|it|they|stays?|kept){W}((is|are|was|were|be|stays?|still|not|no|longer){W})*covered{E}",
            rf"{B}cover(s|ed|ing){W}((an?|the|its|each|every|all|this|that|these|those|whole){W}){{0,2}}(frames?|page){E}",
        ),
        (
            *(
                "uncover(self)",
                "MAX_COVERS = 64",
                "without covers",
                "the frame is covered",
                "the frame is still covered",
            ),
            *("covers a frame", "covering the page", "the covered frames"),
        ),
    ),
    Word("straggler", "late store", "straggl", (r"straggl",), ("stragglers",)),
    Word(
        "linger",
        "deferred unprotect",
        "linger",
        (r"(?<!so_)linger",),
        ("_lingering", "it lingers", "frames that linger"),
    ),
    Word(
        "bury, dying (tables)",
        "free, free_unreferenced",
        "bur|dying|died|dies",
        (
            rf"{B}bur(y|ies|ied|ial|ying){E}",
            rf"{B}dying{W}((leaf|shadow|guest){W})?{A_TABLE}{E}|{B}{A_TABLE}({IS})?{W}d(ying|ies|ied){E}|shadow(->|\.)dying",
            rf"{B}the{W}dying(?!{W}(domain|guest))",
        ),
        ("xd_bury(", "shadow->dying", "a dying table", "XD_TABLE_DYING", "joins the dying.", "the table dies"),
    ),
    Word(
        "adopt (tables)",
        "create tables; a server is still adopted",
        "adopt",
        (rf"{B}adopt(s|ed|ing)?{GAP}{A_TABLE}{E}", r"xd_adopt|\._adopt\("),
        ("adopts the tables", "lib.xd_adopt(", "self._adopt(wanted", "adopting its leaves"),
    ),
    Word("era", "epoch", "era", (rf"{B}eras?{E}",), ("xd_new_era", "an earlier era")),
    Word(
        "attended, seen, traversal (of a table)",
        "synced_in, visited",
        "attend|seen|traversal",
        (rf"{B}attend(s|ed|ing)?{E}", r"->seen\b|\].seen\b|->traversal\b"),
        ("table->attended", "table->seen"),
    ),
    Word(
        "waiting (entry)",
        "pending entry",
        "wait",
        (
            rf"{B}entr(y|ies){GAP}wait(s|ed|ing)?{E}|{B}waiting{GAP}(entr(y|ies)|tables?){E}",
            r"xd_waiting|xd_set_waiting|table(->|\.)waiting",
        ),
        (
            *("entries that wait", "XD_WAITING", "waiting_tables", "table->waiting", "an entry still waits"),
            *("entries that are still waiting", "the entry waited", "a waiting leaf entry"),
        ),
    ),
    Word(
        "doubt, doubtful (frames)", "invalidate", "doubt", (r"doubt",), ("doubt_holes", "doubtful", "doubting a hole")
    ),
    Word(
        "learn, learnt (frames)",
        "query",
        "learn",
        (
            rf"{B}learnt{E}|[_.>]learn{E}|{B}learn_|{B}(un|re|not{W})learn(s|ed|ing)?{E}",
            rf"{B}learn(s|ed|ing)?{GAP}(chunks?|frames?|holes?){E}|{B}(chunks?|frames?|holes?){GAP}learn(s|ed|ing)?{E}",
        ),
        (
            *("frames_learnt", "xd_frames_learn(", "self._frames.learn(chunk)", "must be learnt"),
            *("unlearned", "unlearns the chunk", "learns which frames", "a chunk that was learned", "not learned"),
        ),
    ),
    Word(
        "asked, whole (of a chunk)",
        "queried_at, all_ram",
        "asked|whole",
        (r"->(asked|whole)\b|frames\.(asked|whole)\b",),
        ("frames->asked[chunk]", "frames->whole"),
    ),
    Word(
        "stores_must_end",
        "retype_in_flight_is_fatal",
        "stores_must_end",
        (r"stores_must_end",),
        ("port.stores_must_end",),
    ),
    Word("on_unseen, stores_unseen", "trap gap", "unseen", (r"on_unseen|stores_unseen",), ("self.on_unseen()",)),
    Word(
        "ours, anew, inherited (of a server)",
        "owned, adopted, left_protected",
        "ours|anew|inherit",
        (r"\b(self|server|it)\.ours\b|\banew(: bool|=)|\.inherit(ed)?\b|def inherit\b",),
        ("self.ours = True", "claim(anew=True)", "server.inherited"),
    ),
    Word(
        "twice, released (functions)",
        "retry_once, best_effort",
        "twice|released",
        (r"\btwice\(|import .*\b(twice|released)$|\breleased\(|callback\(released\b",),
        ("twice(port.unmap_mmio", "callback(released, f)"),
    ),
    Word(
        "LeftOut, farewell",
        "PageProblem, end mark",
        "leftout|farewell",
        (r"\bleftout\b|farewell",),
        ("LeftOut.STALE", "_say_farewell"),
    ),
)
#: Names that other programs rely on keep an old word. Name: why.
CONTRACTS = {
    "xengt_straggler_stores_total": "a metric",
    "straggler_stores": "a counter, in answers on the control socket and of replay",
    "xengt_opens_total": "a metric",
    "opened_pages": "a counter, in answers on the control socket and of replay; docs/trace-format.md",
}
#: What the words must stay in: the history, this table, and the table of the glossary.
EXEMPT = ("CHANGELOG.md", "tests/lint/test_words.py")

begin, end = "<!-- table -->\n", "<!-- end of table -->\n"
_SEARCH = {word: (re.compile(word.stem), re.compile("|".join(word.patterns))) for word in WORDS}
#: Where a stem is found, so many characters before and after it are searched, to the end of a word.
_AROUND = 90
_BETWEEN_WORDS = re.compile(r"[^a-z]")
_CONTRACT = re.compile("|".join(rf"\b{name}\b" for name in sorted(CONTRACTS, key=len, reverse=True)))
#: A line's end with what a comment of Python, C or a configuration file begins the next line with.
_LINE_END = re.compile(r"\n[ \t]*(#:?|\*|//)?(?=[ \t])")


def found(text: str) -> Iterator[tuple[int, Word, str]]:
    """Yields (line number, retired word, what was found). A phrase may go over the end of a line, in a comment too."""
    blanked = _CONTRACT.sub(lambda match: " " * len(match[0]), text)
    joined = _LINE_END.sub(lambda match: " " * len(match[0]), blanked)
    lower = f"{joined.lower()}\n"
    for word, (stem, expression) in _SEARCH.items():
        searched_to = 0
        for near in stem.finditer(lower):
            if near.start() < searched_to:
                continue
            first = max(searched_to, near.start() - _AROUND)
            after = _BETWEEN_WORDS.search(lower, min(near.end() + _AROUND, len(lower) - 1))
            assert after is not None
            searched_to = after.start()
            for match in expression.finditer(lower, first, searched_to):
                said = " ".join(joined[match.start() : match.end()].split())
                yield text.count("\n", 0, match.start()) + 1, word, said


def content(path: Path) -> str:
    """A file's name and text; of the glossary without the table of retired words, each line of which is left empty."""
    name = str(path.relative_to(ROOT))
    text = path.read_text("utf-8", "replace")
    if name == "docs/glossary.md":
        before, _, rest = text.partition(begin)
        table, _, after = rest.partition(end)
        text = before + "\n" * (table.count("\n") + 2) + after
    return f"{text}\n{name}\n"


def complaints(path: Path) -> list[str]:
    name = str(path.relative_to(ROOT))
    return [f"{name}:{line}: {said!r}: say {word.today}" for line, word, said in found(content(path))]


def searched() -> list[Path]:
    return [path for path in files() if str(path.relative_to(ROOT)) not in EXEMPT]


def test_no_retired_words() -> None:
    bad = [complaint for path in searched() for complaint in complaints(path)]
    if bad:
        pytest.fail("\n".join(bad), pytrace=False)


@pytest.mark.parametrize("word", WORDS, ids=[word.retired for word in WORDS])
def test_the_expressions_find_the_word_and_nothing_in_plain_english(word: Word) -> None:
    for example in word.examples:
        assert word in [each for _, each, _ in found(example)], example
    for innocent in INNOCENT:
        assert word not in [each for _, each, _ in found(innocent)], innocent


#: Plain English, and words of the field, that the expressions must not find.
INNOCENT = (
    "opens a file and closes it again; open Xen's devices; the file is open; a frame of it, open or not",
    "a write that covers all four bytes; the cover of all cases; covered by the tests",
    "line by line, in lines, inline; is wrong in line 3; for each in line; assert 'x' in line; b not in line",
    "what close leaves bound; whether it leaves that open; SO_LINGER; not self.is_open",
    "the domain is dying; a dying domain; the dying domain's servers",
    "a successor adopts the server; adopt a server's slots",
    "operators learn of it; people learn which; learns its name",
    "a vCPU waits; the waiting vCPU; slots.waiting; wait for an answer",
    "shadowed anew; ours; twice as long; a released version; inherited descriptors",
    "a gallop; going on; lets the vCPU go on",
    "the whole page; asked for; seen on 4.17",
    "xengt_straggler_stores_total, straggler_stores, xengt_opens_total and opened_pages",
)


def test_a_phrase_over_the_end_of_a_line_is_found() -> None:
    for text in ("# it was let\n    # go then", "/* brought\n * in line */", "a table that\nis open"):
        assert [line for line, _, _ in found(text)] == [1], text


def glossary_table() -> str:
    lines = ["| retired | today |", "|---|---|", *(f"| {word.retired} | {word.today} |" for word in WORDS)]
    return "\n".join(lines) + "\n"


def test_the_glossary_has_the_table() -> None:
    path = ROOT / "docs" / "glossary.md"
    before, _, rest = path.read_text().partition(begin)
    written, _, after = rest.partition(end)
    if os.environ.get("XENGT_WRITE"):
        path.write_text(before + begin + glossary_table() + end + after)
    assert written == glossary_table(), "XENGT_WRITE=1 tests/run lint writes it anew"


def test_contracts_are_still_there() -> None:
    text = "\n".join(content(path) for path in searched())
    assert not [name for name in CONTRACTS if not re.search(rf"\b{name}\b", text)]
