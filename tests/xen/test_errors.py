"""From errno to exception, and what must hold before a domain is opened."""

from __future__ import annotations

import builtins
import errno
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xengt_dm.errors import DomainGoneError, ExitCode, HostError
from xengt_dm.hypervisor.xen import library
from xengt_dm.hypervisor.xen.errors import MEANINGS, SERVER_CALLS, failure
from xengt_dm.hypervisor.xen.library import XenVersion, read_version

HEADERS = Path(__file__).resolve().parents[2] / "cffi_build" / "xen"
FUNCTIONS = set(re.findall(r"\b(xen\w+)\(", "".join(path.read_text() for path in HEADERS.glob("*.h"))))


def test_the_table_names_functions_that_are_bound() -> None:
    assert set(MEANINGS) | SERVER_CALLS <= FUNCTIONS | {"xendevicemodel_set_mem_type"}


def test_every_device_model_call_is_in_the_table() -> None:
    handles = {"xendevicemodel_close", "xendevicemodel_restrict"}
    assert {name for name in FUNCTIONS if name.startswith("xendevicemodel_")} - handles <= set(MEANINGS)


@pytest.mark.parametrize("call", sorted(MEANINGS))
def test_no_domain_is_the_same_everywhere(call: str) -> None:
    error = failure(call, 5, errno.ESRCH)
    assert isinstance(error, DomainGoneError)
    assert str(error) == f"{call} for domain 5: ESRCH: the domain is gone"


@pytest.mark.parametrize("call", sorted(set(MEANINGS) - SERVER_CALLS))
def test_enoent_is_a_death_only_of_a_server(call: str) -> None:
    assert not isinstance(failure(call, 5, errno.ENOENT), DomainGoneError)


@pytest.mark.parametrize(
    ("call", "number", "expected"),
    [
        ("xendevicemodel_map_mem_type_to_ioreq_server", errno.EOPNOTSUPP, "HAP"),
        ("xendevicemodel_inject_event", errno.EBUSY, "the event injected before"),
        # What a call does not say itself, every device-model operation has in common.
        ("xendevicemodel_inject_msi", errno.EPERM, "not permitted"),
        ("xendevicemodel_modified_memory_bulk", errno.E2BIG, "dm_op_buf_max_size"),
        # Nothing known: the system's words.
        ("xenevtchn_notify", errno.EIO, "Input/output error"),
        ("a call that nobody knows", errno.EINVAL, "Invalid argument"),
    ],
)
def test_meanings(call: str, number: int, expected: str) -> None:
    error = failure(call, 3, number)
    assert type(error) is HostError
    assert expected in error.meaning
    assert (error.call, error.domid, error.errno) == (call, 3, number)


def test_permission_has_its_own_exit_code() -> None:
    assert failure("xendevicemodel_create_ioreq_server", 1, errno.EPERM).exit_code is ExitCode.PERMISSION
    assert failure("xendevicemodel_create_ioreq_server", 1, errno.ENOSPC).exit_code is ExitCode.UNAVAILABLE


def write_version(folder: Path, major: str, minor: str, extra: str) -> None:
    (folder / "version").mkdir()
    for name, text in (("major", major), ("minor", minor), ("extra", extra)):
        (folder / "version" / name).write_text(text)


def test_version(tmp_path: Path) -> None:
    write_version(tmp_path, "4\n", "17\n", ".6-pre\n")
    assert read_version(tmp_path) == XenVersion(4, 17, ".6-pre")
    assert str(read_version(tmp_path)) == "4.17.6-pre"


def test_version_that_is_none(tmp_path: Path) -> None:
    assert read_version(tmp_path) is None
    write_version(tmp_path, "four", "17", "")
    assert read_version(tmp_path) is None


@pytest.mark.parametrize(
    ("version", "supported"), [((4, 12), False), ((4, 13), True), ((4, 9), False), ((5, 0), True), ((3, 99), False)]
)
def test_floor(version: tuple[int, int], supported: bool) -> None:
    assert XenVersion(*version, "").supported is supported


def without_extension(error: ImportError) -> Callable[..., Any]:
    """An __import__ to which the extension fails with ``error``."""
    real = builtins.__import__

    def replaced(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "xengt_dm._xen":
            raise error
        return real(name, *arguments, **keywords)

    return replaced


@pytest.mark.parametrize(
    ("error", "number", "expected"),
    [
        (ModuleNotFoundError("No module", name="xengt_dm._xen"), errno.ENOSYS, "install libxen-dev"),
        (ModuleNotFoundError("No module named '_cffi_backend'", name="_cffi_backend"), errno.ENOSYS, "_cffi_backend"),
        (ImportError("libxenevtchn.so.1: cannot open shared object"), errno.ELIBACC, "libxenevtchn"),
    ],
)
def test_extension_that_does_not_load(
    monkeypatch: pytest.MonkeyPatch, error: ImportError, number: int, expected: str
) -> None:
    monkeypatch.delitem(sys.modules, "xengt_dm._xen", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_extension(error))
    with pytest.raises(HostError, match=expected) as caught:
        library.load()
    assert caught.value.errno == number
    assert caught.value.exit_code is ExitCode.UNAVAILABLE
