"""The contract of each C function: a comment of its own in its header, which says who calls it, and is right."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CFFI_BUILD = ROOT / "cffi_build"
PACKAGE = ROOT / "xengt_dm"
SOURCES = [path.relative_to(CFFI_BUILD).as_posix() for path in sorted(CFFI_BUILD.rglob("*.c"))]
HEADERS = [path.relative_to(CFFI_BUILD).as_posix() for path in sorted(CFFI_BUILD.rglob("*.h"))]
#: Functions of Xen's libraries, whose contracts are in Xen's headers. Ours declare them for cffi only.
XENS = re.compile(r"xen(devicemodel|evtchn|foreignmemory|toolcore)_")

_TOKEN = re.compile(
    r"(?P<comment>/\*.*?\*/)|(?P<directive>^#(?:[^\n]*\\\n)*[^\n]*)|(?P<body>\{)|(?P<end>;)|(?P<text>[^/#{;]+|.)",
    re.DOTALL | re.MULTILINE,
)
_FUNCTION = re.compile(r"(?P<returns>[\w\s*]*?)(?P<name>\w+)\((?P<parameters>(?:[^()]|\([^()]*\))*)\)\s*")
_CALLERS = re.compile(r"[Cc]alled (?:only )?by ((?:[^.]|\.(?=\w))*)\.")
#: What a comment may name as callers instead of files.
_FOLDER = "C files of this folder"


@dataclass(frozen=True)
class Function:
    """A function that a header declares or defines, with the comment that stands directly before it."""

    name: str
    returns: str
    parameters: tuple[str, ...]
    comment: str
    inline: bool


@dataclass(frozen=True)
class Header:
    """``general``: the comments that belong to no function."""

    functions: tuple[Function, ...]
    general: str


def read_header(text: str) -> Header:
    """Returns what a header declares."""
    functions = []
    general = []
    comment = ""
    statement = ""
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match is not None
        position = match.end()
        if match["comment"]:
            if not statement.strip():
                general.append(comment)
                comment, statement = plain(match["comment"]), ""
        elif match["body"] or match["end"]:
            if match["body"]:
                position = end_of_block(text, position)
            found = _FUNCTION.fullmatch(statement.strip())
            if found and "(" in statement and "typedef" not in statement:
                own = comment if not re.match(r"\s*\n\s*\n", statement) else ""
                general.append("" if own else comment)
                functions.append(function(found, own))
            else:
                general.append(comment)
            # What follows a block before its semicolon, the name of a type, declares no function.
            comment, statement = "", "" if match["end"] or found else "typedef "
        elif match["directive"]:
            statement = ""
        else:
            statement += match["text"]
    general.append(comment)
    return Header(tuple(functions), " ".join(general))


def end_of_block(text: str, position: int) -> int:
    """Returns where the block ends whose opening brace lies before ``position``."""
    depth = 1
    while depth:
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        position += 1
    return position


def function(found: re.Match[str], comment: str) -> Function:
    parameters = re.sub(r"\(\*(\w+)\)\([^()]*\)", r"\1", found["parameters"])  # a pointer to a function
    names = [re.findall(r"\w+", parameter)[-1] for parameter in parameters.split(",")]
    words = found["returns"].split()
    returns = " ".join(word for word in words if word not in ("static", "inline"))
    own = tuple(name for name in names if name != "void")
    return Function(found["name"], returns, own, comment, "inline" in words)


def plain(comment: str) -> str:
    """Returns the words of a comment."""
    return " ".join(re.sub(r"^/\*|\*/$|^ \*", " ", comment, flags=re.MULTILINE).split())


@functools.cache
def users() -> dict[str, frozenset[str]]:
    """By name: the files whose code has it. Paths are from the package or from cffi_build; of a test, just `tests`."""
    found: dict[str, set[str]] = {}
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        shown = path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else "tests"
        for node in ast.walk(ast.parse(path.read_text(), path.name)):
            if isinstance(node, ast.Attribute):
                found.setdefault(node.attr, set()).add(shown)
    for path in CFFI_BUILD.rglob("*.[ch]"):
        code = re.sub(r"/\*.*?\*/", " ", path.read_text(), flags=re.DOTALL)
        for name in set(re.findall(r"\w+", code)):
            found.setdefault(name, set()).add(path.relative_to(CFFI_BUILD).as_posix())
    return {name: frozenset(files) for name, files in found.items()}


def complaints(header: str, found: Header) -> Iterator[str]:
    """What is missing from a header's comments, or wrong in them."""
    for each in found.functions:
        if XENS.match(each.name):
            continue
        if not each.comment:
            yield f"{each.name} has no comment of its own directly before it"
            continue
        both = f"{each.comment} {found.general}"
        if each.returns != "void" and not re.search(r"\breturns?\b", each.comment, re.IGNORECASE):
            yield f"{each.name}: what it returns"
        if unnamed := [name for name in each.parameters if not re.search(rf"\b{name}\b", both)]:
            yield f"{each.name}: what the parameters are: {', '.join(unnamed)}"
        if not re.search(r"\bthreads?\b", both, re.IGNORECASE):
            yield f"{each.name}: which thread calls it"
        yield from callers_complaints(header, each)


def callers_complaints(header: str, each: Function) -> Iterator[str]:
    folder = header.rpartition("/")[0]
    own = {header, header.removesuffix(".h") + ".c"}
    callers = users().get(each.name, frozenset())
    said = " ".join(_CALLERS.findall(each.comment))
    named = set(re.findall(r"[\w/]+\.(?:py|c|h)\b", said)) | set(re.findall(r"\btests\b", said))
    here = {file for file in callers - own if file.rpartition("/")[0] == folder}
    if not said:
        yield f"{each.name}: who calls it"
    for name in sorted(named):
        if not any(file == name or (name.endswith((".c", ".h")) and file.endswith(f"/{name}")) for file in callers):
            yield f"{each.name} is not called by {name}"
    if _FOLDER in said and not here:
        yield f"{each.name} is not called by {_FOLDER}"
    for file in sorted(callers - own - {"tests"} - (here if _FOLDER in said else set())):
        if not {file, file.rpartition("/")[2] if file.endswith((".c", ".h")) else file} & named:
            yield f"{each.name} is called by {file}, too"


@pytest.mark.parametrize("header", HEADERS)
def test_every_function_has_its_contract(header: str) -> None:
    if wrong := [*complaints(header, read_header((CFFI_BUILD / header).read_text()))]:
        pytest.fail("\n".join(f"{header}: {each}" for each in wrong), pytrace=False)


@pytest.mark.parametrize("header", HEADERS)
def test_a_comment_that_is_taken_out_is_missed(header: str) -> None:
    text = (CFFI_BUILD / header).read_text()
    names = [each.name for each in read_header(text).functions if not XENS.match(each.name)]
    for name in names:
        comment = r"/\*(?:(?!\*/).)*\*/\n(?=[^\n]*\b" + name + r"\()"
        without, count = re.subn(comment, "", text, count=1, flags=re.DOTALL)
        assert count == 1
        assert f"{name} has no comment of its own directly before it" in complaints(header, read_header(without))


OURS = """
/* Compares things. Any thread. */

/* Returns their size, or -EINVAL. Called by ppgtt/read.py. */
int xd_audit_step(const struct thing *things, int (*work)(void *more), char name[]);
"""


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (OURS, "what the parameters are: work, name"),
        (OURS.replace("Returns", "Takes"), "what it returns"),
        (OURS.replace("Any thread. ", ""), "which thread calls it"),
        (OURS.replace("Called by ppgtt/read.py", "Never"), "who calls it"),
        (OURS.replace("Called by ppgtt/read.py", "Called by ppgtt/tree.py"), " is not called by ppgtt/tree.py"),
        (OURS.replace("Called by ppgtt/read.py", "Called by leaf.c"), " is called by ppgtt/read.py, too"),
        (OURS.replace("*/\nint", "*/\n\nint"), " has no comment of its own directly before it"),
        (OURS.replace("*/\nint", "*/\nint other(void);\nint"), " has no comment of its own directly before it"),
    ],
)
def test_what_a_comment_lacks(text: str, wrong: str) -> None:
    found = [*complaints("core/ppgtt/other.h", read_header(text))]
    assert f"xd_audit_step{'' if wrong.startswith(' ') else ': '}{wrong}" in found


@pytest.mark.parametrize("source", SOURCES)
def test_a_header_declares_what_the_file_of_its_name_defines(source: str) -> None:
    """So each C file has its header, and a function is looked for in one place."""
    path = CFFI_BUILD / source
    header = path.with_suffix(".h")
    text = path.read_text()
    assert f'#include "{header.name}"' in text
    for each in read_header(header.read_text()).functions:
        if not each.inline and not XENS.match(each.name):
            assert re.search(rf"^\w[^;\n]*\b{each.name}\(", text, re.MULTILINE), f"{each.name} is defined elsewhere"
