"""What tests of kills share."""

from __future__ import annotations

import ctypes

import pytest

from tests.single_step.stepping import compile_library, load_library


@pytest.fixture(scope="module")
def stepping(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The library by which a process kills itself after an instruction; Linux on x86-64 only."""
    return load_library(compile_library(tmp_path_factory.mktemp("stepping")))
