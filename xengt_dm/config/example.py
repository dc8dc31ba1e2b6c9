"""The host's configuration file as it is installed: every key with its documentation, commented out, at its default."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

from xengt_dm.config.keys import KEYS, SECTIONS, Key, show

_WIDTH = 100
_HEAD = """\
# Configuration of xengt-dm; xengt-dm.toml(5) says the same at length.
#
# Every key is here with its default, commented out. A file domains/NAME.toml beside this one says what is different for
# the domain NAME, and options of `xengt-dm run` win over both. `xengt-dm config check` finds mistakes, `xengt-dm config
# show` tells what holds and where it comes from. A running daemon follows keys that say so on `systemctl reload`.
"""


def text(keys: Mapping[str, Key] = KEYS) -> str:
    """The whole file."""
    return "\n".join(_parts(keys))


def _parts(keys: Mapping[str, Key]) -> Iterator[str]:
    yield _HEAD
    for section, about in SECTIONS.items():
        rows = [key for key in keys.values() if key.section == section]
        if not rows:
            continue
        yield f"# {about}"
        yield f"[{section}]\n"
        for key in rows:
            yield from (f"# {line}" for line in textwrap.wrap(key.doc, _WIDTH, break_on_hyphens=False))
            facts = [key.range]
            if key.reloadable:
                facts.append("followed while running")
            if key.host_only:
                facts.append("for the host only")
            if key.aliases:
                facts.append(f"once called {', '.join(key.aliases)}")
            yield f"# ({'; '.join(facts)})"
            yield f"#{key.name.partition('.')[2]} = {show(key, key.default)}\n"
