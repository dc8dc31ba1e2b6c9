"""The table of docs/crash-only.md, made from the layout."""

from __future__ import annotations

from xengt_dm.state.layout import ROWS, Capacities, Layout

#: The defaults: a domain of 4 GiB, and shadow.max_spaces.
EXAMPLE = Capacities(frames=1 << 20, spaces=4096)


def layout_table() -> str:
    """Returns the table of the regions."""
    layout = Layout(EXAMPLE)
    lines = ["| region | offset | bytes | what it has |", "|---|---|---|---|"]
    for row in ROWS:
        region = layout[row.name]
        lines.append(f"| `{row.name}` | {region.offset:#x} | {region.size:,} | {row.text} |")
    return "\n".join(lines) + "\n"
