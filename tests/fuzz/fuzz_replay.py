"""Fuzzing the whole path under coverage, by hand and for as long as one likes.

    pip install atheris
    python -m tests.fuzz.fuzz_replay [-max_total_time=3600] DIRECTORY

Takes libFuzzer's options. The corpus in ``corpus.txt`` is put into DIRECTORY first, and new inputs are kept there. Of
what fails, the trace is in ``crash.jsonl``; ``python -m tests.oracle check crash.jsonl`` shows it to a person. Coverage
of the C comes with ``CC=clang XENGT_CFLAGS=-fsanitize=fuzzer-no-link,address`` at the build and
``LD_PRELOAD=$(python -c "import atheris; print(atheris.path())")/asan_with_fuzzer.so`` at the start.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["xengt_dm"]):
    from tests.fuzz.one_input import corpus, one_input


def fuzz(data: bytes) -> None:
    found = one_input(data)
    if found:
        raise AssertionError("\n".join(found[:5]))


def main() -> None:
    words = [Path(word) for word in sys.argv[1:] if not word.startswith("-")]
    for directory in (path for path in words if not path.is_file()):
        directory.mkdir(parents=True, exist_ok=True)
        for data in corpus():
            (directory / hashlib.sha1(data).hexdigest()).write_bytes(data)
        break
    # SIGBUS is the guard's, cffi_build/core/base/guard.c.
    atheris.Setup([*sys.argv, "-handle_bus=0", "-max_len=1604"], fuzz)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
