"""``xengt-dm run``: serve a domain of this host's Xen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from xengt_dm.cli.options import check_name, check_type, config_dir_option, name_of, set_option, settings_of, uuid_of
from xengt_dm.cli.run_dir import run_dir_option
from xengt_dm.cli.types import Domid
from xengt_dm.config.files import Assignment
from xengt_dm.config.keys import KEYS, Key, show
from xengt_dm.config.merge import load
from xengt_dm.config.values import WrongError, from_text
from xengt_dm.errors import ExitCode, UsageError
from xengt_dm.lazy_imports import import_lazily, importing

if TYPE_CHECKING:
    from xengt_dm.hypervisor.port import DomainPort

#: Options that are short for --set of a key.
SHORT: Final = {
    "bar0": "device.bar0_gpa",
    "generation": "device.generation",
    "mode": "shadow.mode",
    "max_tables": "shadow.max_tables",
    "frame_limit": "domain.frame_limit",
    "log_level": "log.level",
}


def _complete(key: Key) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    def values(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        return [str(each) for each in key.choices if str(each).startswith(incomplete)]

    return values


def _short_options(function: Any) -> Any:
    for option, name in reversed(SHORT.items()):
        key = KEYS[name]
        flag = "--" + option.replace("_", "-")
        text = f"{key.range.replace(chr(34), '')}; the key {name}, {show(key, key.default)} by default."
        function = click.option(flag, option, metavar="VALUE", shell_complete=_complete(key), help=text)(function)
    return function


@click.command(name="run", short_help="Serve a domain.")
@click.option("-d", "--domid", type=Domid(), required=True, help="The domain to serve.")
@click.option(
    "--name",
    metavar="NAME",
    help="The domain's name, which selects its configuration file. Default: the name in xenstore.",
)
@click.option(
    "--sim",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Serve a domain of `xengt-dm sim --dir DIR` instead of one of Xen.",
)
@click.option("--record", metavar="FILE", help="Record what the guest does, for `replay`; gzip if FILE ends in .gz.")
@click.option(
    "--backoff",
    is_flag=True,
    help="Wait before serving if earlier daemons of the domain died soon after their start, and before the end if this "
    "one fails. For a service manager that starts it again at once.",
)
@_short_options
@set_option
@config_dir_option
@run_dir_option
def command(
    domid: int,
    name: str | None,
    sim: Path | None,
    record: str | None,
    sets: tuple[str, ...],
    config_dir: Path,
    base: Path,
    backoff: bool,
    **short: str | None,
) -> ExitCode:
    """Serve a domain as its graphics device model until SIGTERM, or until the domain ends.

    After SIGTERM the domain continues without traps. Must be started in the control domain as root. It then restricts
    itself to the domain and becomes a user that exists for this domain alone. Options override the domain's
    configuration file, which overrides the host's; see xengt-dm.toml(5). On SIGHUP the files are read again.

    When `upgrade` asks it to, it leaves the domain to a successor, which must be started at once, and ends with status
    79. The daemon may be killed at any time. A vCPU that needs the device then waits until a successor serves.

    With --sim neither Xen nor root is needed, and the daemon keeps its user id.
    """
    # Imported here: completion and help need none of it, and what a daemon imports counts (docs/performance.md).
    with importing():
        import_lazily()
        from xengt_dm.daemon.main import run
        from xengt_dm.daemon.reload import Running
        from xengt_dm.log import log
        from xengt_dm.run_dir.directory import open_directory
        from xengt_dm.service import limits, sandbox
        from xengt_dm.service.backoff import waiting_after_failure
        from xengt_dm.service.launched import own_settings
        from xengt_dm.service.notify import Notifier

    with closing(Notifier()) as notifier, ExitStack() as stack:
        if backoff:
            stack.enter_context(waiting_after_failure(notifier))
        uuid = uuid_of(domid) if sim is None else None
        sets = own_settings(sets, uuid) if sim is None else sets
        options = [*settings_of(sets), *_from_short(short)]
        name = name_of(config_dir, domid, name) if sim is None else _checked(config_dir, name)
        config = load(config_dir, name, options)
        log.configure(domid=domid, level=config.string("log.level"))
        log.set_limits(config.integer("log.burst"), config.integer("log.interval_ms") / 1000)
        limits.check(config)
        if sim is None:
            check_type(config, domid)
        running = Running(config, lambda: load(config_dir, name, options))
        limit = config.integer("domain.frame_limit") or None
        port: DomainPort
        if sim is None:  # the Xen libraries may be missing, and then the error is about that
            from xengt_dm.hypervisor.xen.port import XenPort

            port = stack.enter_context(closing(XenPort(domid, frame_limit=limit, restrict=True)))
        else:
            from xengt_dm.hypervisor.sim.port import SimPort

            port = sim_port = stack.enter_context(closing(SimPort(sim, domid, frame_limit=limit)))
            uuid = sim_port.uuid
        file = None
        if record is not None:
            from xengt_dm.daemon.recording import open_trace_file

            file = open_trace_file(record)
        if sim is None:  # one of a sim has no power over another domain, and the sim is this user's
            sandbox.enter(domid, open_directory(base, domid))
        return run(port, running, base, notifier, file, uuid, backoff=backoff)


def _checked(config_dir: Path, name: str | None) -> str | None:
    if name is not None:
        check_name(config_dir, name)
    return name


def _from_short(short: dict[str, str | None]) -> Iterator[Assignment]:
    for option, text in short.items():
        if text is None:
            continue
        flag = "--" + option.replace("_", "-")
        try:
            key = KEYS[SHORT[option]]
            yield Assignment(key, from_text(key, text), flag)
        except WrongError as error:
            raise UsageError(f"{flag}: {error}") from None
