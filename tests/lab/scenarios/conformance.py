"""The table of tests/conformance on real Xen: every case that can be shown here must agree."""

import importlib

GUESTS = ("conformance",)
FOLDERS = ("conformance",)
SECONDS = 900


def run() -> dict[str, int | float | str]:
    """The scenario, in dom0: what it needs is only there."""
    figures: dict[str, int | float | str] = importlib.import_module("conformance.lab").run()
    return figures
