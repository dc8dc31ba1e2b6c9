"""Installs the project for itself and becomes ``xengt-dm demo``."""

from __future__ import annotations

import os
import sys

import environments
import projects
from command import SetupError


def main() -> None:
    try:
        installed = projects.install(environments.make(environments.Kind.DEMO), "demo")
    except SetupError as error:
        sys.exit(f"setup: {error}")
    program = str(installed.site / "bin" / "xengt-dm")
    os.execve(program, [program, "demo", *sys.argv[1:]], installed.environment())


if __name__ == "__main__":
    main()
