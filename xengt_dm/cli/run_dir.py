"""The option that says where the instances' run directories are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from xengt_dm.run_dir.directory import DEFAULT_BASE

F = TypeVar("F", bound=Callable[..., Any])


def run_dir_option(function: F) -> F:
    """Adds ``--run-dir``, the parameter ``base``. Returns the function."""
    return click.option(
        "--run-dir",
        "base",
        type=click.Path(path_type=Path, file_okay=False),
        default=DEFAULT_BASE,
        show_default=True,
        help="Where the daemons keep their sockets.",
    )(function)
