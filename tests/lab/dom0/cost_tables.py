"""Figures as tables: on the console for whoever watches, and by name for the verdict."""

from collections.abc import Sequence

from .checks import say

Figures = dict[str, int | float | str]


class Report:
    """Takes the rows of tables, and says each table when it is whole."""

    def __init__(self) -> None:
        self.figures: Figures = {}
        self.missed: list[str] = []

    def table(self, title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[float]]]) -> None:
        """Say a table, and keep each figure as ``row/column``. A row may be shorter than the columns are many."""
        cells = [[title, *columns]]
        for name, values in rows:
            cells.append([name, *map(_short, values)])
            self.figures.update(
                {f"{name}/{column}": round(value, 3) for column, value in zip(columns, values, strict=False)}
            )
        widths = [max(len(row[i]) if i < len(row) else 0 for row in cells) for i in range(len(cells[0]))]
        for row in cells:
            say(" | ".join(cell.ljust(widths[0]) if not i else cell.rjust(widths[i]) for i, cell in enumerate(row)))

    def goal(self, name: str, value: float, limit: float, *, at_least: bool = False) -> None:
        """Say whether a figure is what it is to be."""
        met = value >= limit if at_least else value <= limit
        if not met:
            self.missed.append(name)
        say(f"{'met   ' if met else 'MISSED'} {name}: {_short(value)}, goal {'>=' if at_least else '<='} {limit:g}")


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"
