"""``xengt-dm manual``: the manual pages, made from what they describe. The package's build writes them to files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import click

from xengt_dm import __version__
from xengt_dm.cli import roff
from xengt_dm.config.keys import KEYS, SECTIONS, show
from xengt_dm.errors import ExitCode

MANUAL: Final = "xengt-dm"

#: The meaning of each exit status, for scripts.
STATUSES: Final = {
    ExitCode.OK: "Success.",
    ExitCode.DIFFERS: "An audit found that a shadow differs from the guest's tables, or the guest of `demo` or `sim` "
    "found its memory wrong.",
    ExitCode.USAGE: "Wrong use: an unknown option or argument, or a wrong value.",
    ExitCode.DATA: "Bad data: a file that is not a valid trace, or an address space that is not live.",
    ExitCode.NO_DOMAIN: "There is no such domain, or it ended before it was served.",
    ExitCode.UNAVAILABLE: "Something is unavailable: there is no daemon or no Xen, or it refused the request, or "
    "says that it has a bug.",
    ExitCode.INTERNAL: "This command has a bug; please report it with what it printed.",
    ExitCode.BUSY: "The request has to wait: a daemon still serves the domain, or a recording goes on.",
    ExitCode.SILENT: "A daemon is there and did not answer in time: it is stopped or stuck.",
    ExitCode.PERMISSION: "Not permitted.",
    ExitCode.CONFIG: "The configuration is wrong; the message says where.",
    ExitCode.HANDOVER: "Of `run` only: the daemon was asked by `upgrade` to leave its domain to a successor.",
}


@click.command("manual")
@click.argument("page", type=click.Choice(["xengt-dm.8", "xengt-dm.toml.5", "xengt-dm-metrics.7"]))
def command(page: str) -> None:
    """Print a manual page in the format of man(7)."""
    pages: dict[str, Callable[[], Iterator[str]]] = {
        "xengt-dm.8": _program,
        "xengt-dm.toml.5": _configuration,
        "xengt-dm-metrics.7": _metrics,
    }
    for part in roff.page(pages[page]()):
        click.echo(part)


def _program() -> Iterator[str]:
    from xengt_dm.cli import COMMANDS, main

    yield roff.title(MANUAL, 8, __version__, "System Administration")
    yield roff.heading("name")
    yield "xengt\\-dm \\- Xen device model that shadows a virtual Intel GPU's page tables"
    yield roff.heading("synopsis")
    yield ".B xengt\\-dm\n.I COMMAND\n.RI [ ARGUMENTS ]"
    yield roff.heading("description")
    yield roff.paragraph(
        "A guest's graphics driver keeps the page tables of its GPU in the guest's own memory. xengt-dm is an ioreq "
        "server: it has Xen trap the stores to those pages, performs each store, and keeps a shadow copy of the "
        "tables. Whenever the GPU would start work (a submission), the shadow says what the guest's tables say, and it "
        "never points to a frame that the guest does not own."
    )
    yield roff.paragraph(
        "`xengt-dm run` is the daemon, one for each domain. `xengt-dm@DOMID.service` runs it under systemd, and "
        "`xengt-dm-watch.service` starts and stops these units as domains come and go. The other commands ask a daemon "
        "over its control socket, or do not need a daemon."
    )
    yield roff.heading("commands")
    context = click.Context(main, info_name="xengt-dm", **main.context_settings)
    for name in COMMANDS:
        each = main.get_command(context, name)
        assert each is not None
        yield from _command(each, click.Context(each, info_name=name, parent=context))
    yield roff.heading("exit status")
    for status, text in STATUSES.items():
        yield roff.item(str(int(status)), text)
    yield roff.heading("files")
    for term, text in _FILES.items():
        yield roff.item(term, text)
    yield roff.heading("logs")
    yield roff.paragraph(
        "Under systemd an event is a journal entry with the fields `XENGT_EVENT`, `XENGT_DOMID` and one for each fact. "
        "On a terminal it is a coloured line. Elsewhere it is a line of JSON on standard error. Events that a guest "
        "can cause are rate-limited; the number of events that were held back is reported."
    )
    yield roff.example(["journalctl XENGT_DOMID=5", "journalctl XENGT_EVENT=guest.dropped_stores"])
    yield roff.heading("saving and migrating")
    yield roff.paragraph(
        "Xen refuses to migrate a domain live while it has protected pages. Quiesce it before it is migrated or "
        "saved. If the domain stays on this host, resume it afterwards:"
    )
    yield roff.example(["xengt-dm quiesce --domid 5", "xl save -c guest guest.saved", "xengt-dm resume --domid 5"])
    yield roff.heading("completion")
    yield roff.paragraph("The package installs completion for bash. For another shell:")
    yield roff.example(["_XENGT_DM_COMPLETE=zsh_source xengt-dm > ~/.xengt-dm-complete.zsh"])
    yield roff.heading("see also")
    yield "xengt\\-dm.toml(5), xengt\\-dm\\-metrics(7), xl(1), xl.cfg(5), systemd.service(5)"


_FILES: Final = {
    "/etc/xengt-dm/xengt-dm.toml": "The configuration of the host.",
    "/etc/xengt-dm/domains/NAME.toml": "Overrides it for the domain of that name.",
    "/run/xengt-dm/DOMID/": "An instance's control socket, stats page and state, and the id of its ioreq server.",
}


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yields a command, its options, and the commands below it."""
    usage = " ".join(command.collect_usage_pieces(context))
    yield roff.subheading(f"{context.command_path} {usage}")
    for paragraph in (command.help or "").split("\n\n"):
        yield roff.paragraph(paragraph)
    for parameter in command.params:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:
            yield roff.item(*record)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            each = command.get_command(context, name)
            if each is not None:
                yield from _command(each, click.Context(each, info_name=name, parent=context))


def _configuration() -> Iterator[str]:
    yield roff.title("xengt-dm.toml", 5, __version__, "File Formats")
    yield roff.heading("name")
    yield "xengt\\-dm.toml \\- configuration of xengt\\-dm"
    yield roff.heading("description")
    yield roff.paragraph(
        "The files are in TOML. `/etc/xengt-dm/xengt-dm.toml` applies to the host, and "
        "`/etc/xengt-dm/domains/NAME.toml` overrides it for the domain NAME. Options of `xengt-dm run` override the "
        "domain's file, which overrides the host's file, which overrides the defaults. Any of the files may be "
        "missing. A key is written in its section, or with a dot:"
    )
    yield roff.example(["[shadow]", 'mode = "relaxed"'])
    yield roff.example(['shadow.mode = "relaxed"'])
    yield roff.paragraph(
        "An unknown key or a value that is not allowed is an error: the message names the file, the line and the "
        "remedy, and nothing starts. `xengt-dm config check` finds such mistakes beforehand. `xengt-dm config show` "
        "shows the values that would be in effect, and where each comes from. `--set KEY=VALUE` sets a key for one run."
    )
    yield roff.paragraph(
        "On SIGHUP a daemon reads the files again. It applies the keys that are marked below, and logs which other "
        "changes need a restart. If the files are wrong, the daemon keeps the old values."
    )
    for section, about in SECTIONS.items():
        rows = [key for key in KEYS.values() if key.section == section]
        if not rows:
            continue
        yield roff.heading(f"section [{section}]")
        yield roff.paragraph(about)
        for key in rows:
            facts = [f"{key.kind.value}, {key.range}; {show(key, key.default)} by default."]
            if key.reloadable:
                facts.append("Applied on SIGHUP while the daemon runs.")
            if key.host_only:
                facts.append("In the host's file only.")
            if key.aliases:
                facts.append(f"XenGT's name for it, {', '.join(key.aliases)}, is accepted outside of a section.")
            yield roff.item(key.name, key.doc)
            yield f".br\n{roff.prose(' '.join(facts))}"
    yield roff.heading("see also")
    yield "xengt\\-dm(8)"


def _metrics() -> Iterator[str]:
    from xengt_dm.stats.table import METRICS

    yield roff.title("xengt-dm-metrics", 7, __version__, "Miscellanea")
    yield roff.heading("name")
    yield "xengt\\-dm\\-metrics \\- the metrics of xengt\\-dm for Prometheus"
    yield roff.heading("description")
    yield roff.paragraph(
        "`xengt-dm exporter` reads the stats pages of all daemons of a host and serves them to Prometheus; "
        "`xengt-dm exporter --once` prints them. A page that is stale or cannot be used is left out and counted."
    )
    yield roff.heading("metrics")
    for metric in METRICS:
        labels = "{" + ",".join(metric.labels) + "}" if metric.labels else ""
        yield roff.item(metric.name + labels, f"{metric.help}.")
        yield f".br\n{roff.prose(f'{metric.kind.value}, {metric.unit}.')}"
    yield roff.heading("see also")
    yield "xengt\\-dm(8)"
