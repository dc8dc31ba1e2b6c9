"""How the tests run, whoever starts them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

# So that tests share code: `from tests.support.machine import ...`. Last, because the code that is tested comes from
# where the environment says, not from the folder beside this one (tests/setup/projects.py).
sys.path.append(str(Path(__file__).resolve().parents[1]))

# nohup ignores SIGHUP, and a shell ignores SIGINT in what it starts in the background. Programs that tests start would
# inherit that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# Of one commit, every run tries the same examples. The time of one depends on who else uses the machine.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
# Other examples each time, and many: HYPOTHESIS_PROFILE=long tests/run unit
settings.register_profile("long", max_examples=5000, deadline=None, print_blob=True)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")
settings.load_profile(PROFILE)


def pytest_report_header() -> list[str]:
    return [f"hypothesis profile: {PROFILE} (HYPOTHESIS_PROFILE=ci|long)"]


@pytest.fixture(scope="session", autouse=True)
def commands_say_nothing_of_a_slow_machine() -> Iterator[None]:
    """Commands that run in the tests' own process: what they say after some seconds would be in the compared output."""
    with pytest.MonkeyPatch.context() as patch:
        with suppress(ImportError):  # rooms that need neither the project nor click
            patch.setattr("xengt_dm.cli.notice.AFTER_SECONDS", 3600.0)
        yield


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The project's root."""
    return Path(__file__).resolve().parents[1]
