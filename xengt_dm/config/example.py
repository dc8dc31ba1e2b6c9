"""The host's configuration file as it is installed: every key with its documentation, commented out, at its default."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

from xengt_dm.config.keys import KEYS, SECTIONS, Key, show

_WIDTH = 100
_HEAD = """\
# Configuration of xengt-dm. xengt-dm.toml(5) describes it in more detail.
#
# This file lists every key, commented out, with its default value. A file domains/NAME.toml in the same directory
# overrides it for the domain NAME, and options of `xengt-dm run` override both. `xengt-dm config check` finds mistakes.
# `xengt-dm config show` shows the values in effect and where each comes from. On `systemctl reload` a running daemon
# applies new values of the keys that are marked "followed while running".
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
