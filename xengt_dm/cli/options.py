"""What the commands that read the configuration have in common: their options, and the reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from errno import ECONNREFUSED, ENOENT
from pathlib import Path
from typing import Any, TypeVar

import click

from xengt_dm.config.files import Assignment, read_setting
from xengt_dm.config.merge import DEFAULT_DIRECTORY, Config, domain_file, domain_files
from xengt_dm.errors import ConfigError, DomainGoneError, HostError, UsageError

F = TypeVar("F", bound=Callable[..., Any])


def _existing(_context: click.Context, _parameter: click.Parameter, directory: Path) -> Path:
    """The default may be missing, where the defaults of all keys are good enough; one that was asked for may not."""
    if directory != DEFAULT_DIRECTORY and not directory.is_dir():
        raise click.BadParameter(f"there is no directory {directory}")
    return directory


def config_dir_option(function: F) -> F:
    """Adds ``--config-dir``. Returns the function."""
    return click.option(
        "--config-dir",
        type=click.Path(path_type=Path, file_okay=False),
        default=DEFAULT_DIRECTORY,
        show_default=True,
        callback=_existing,
        help="Where xengt-dm.toml is, and domains/NAME.toml.",
    )(function)


def set_option(function: F) -> F:
    """Adds ``--set``, the parameter ``sets``. Returns the function."""
    return click.option(
        "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Set a key of the configuration; overrides the files."
    )(function)


def settings_of(sets: Sequence[str]) -> list[Assignment]:
    """What ``--set`` said, in order. Raises ConfigError."""
    return [read_setting(text) for text in sets]


def check_name(directory: Path, name: str) -> Path:
    """The file of the domain with this name, if there is one. Raises UsageError for a name that no file can have."""
    file = domain_file(directory, name)
    if file is None:
        raise UsageError(f"--name {name!r}: no file can have that name in {directory}")
    return file


def name_of(directory: Path, domid: int, name: str | None) -> str | None:
    """The name that chooses a domain's file: the one given, or what xenstore says.

    While there is no file to choose, it may be None, if xenstore does not answer. A file that is added later applies to
    the next reload. Raises UsageError, ConfigError or HostError; DomainGoneError if there is no such domain.
    """
    if name is not None:
        check_name(directory, name)
        return name
    from xengt_dm.xenstore import XenStore

    has_files = bool(domain_files(directory))
    try:
        store = XenStore()
    except HostError:
        if has_files:
            raise
        return None
    with store:
        try:
            return store.read(f"/local/domain/{domid}/name")
        except HostError as error:
            if not has_files:
                return None
            if error.errno != ENOENT:
                raise
            raise DomainGoneError("xenstore read", domid, ENOENT, "there is no such domain") from error


def check_type(config: Config, domid: int) -> None:
    """Raises ConfigError if the configured device is none for a domain of this type.

    Facts: a skylake that sends no messages drives an interrupt line. Xen asserts that the domain has an I/O APIC then
    (vioapic.c, vpic.c), and a PVH guest has none: a debug build of Xen would crash. So a PVH guest gets no skylake.
    """
    if config.string("device.kind") != "skylake":
        return
    from xengt_dm.service import domains
    from xengt_dm.xenstore import XenStore

    with XenStore() as store:
        if domains.type_of(store, domid) == "pvh":
            raise ConfigError(
                f"device.kind: domain {domid} is a PVH guest, which has no PCI bus; a skylake needs an HVM guest, with "
                'type = "hvm" in its xl file'
            )


def uuid_of(domid: int) -> str | None:
    """The domain's uuid; None where xenstore has none, or there is no xenstore. Raises HostError if it is silent."""
    from xengt_dm.service import domains
    from xengt_dm.xenstore import XenStore

    try:
        store = XenStore()
    except HostError as error:
        if error.errno in (ENOENT, ECONNREFUSED):
            return None
        raise
    with store:
        return domains.uuid_of(store, domid)
