"""``xengt-dm manual``: the manual pages, made from what they describe; the package's build writes them to files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import click

from xengt_dm import __version__
from xengt_dm.cli import roff
from xengt_dm.config.keys import KEYS, SECTIONS, show
from xengt_dm.errors import ExitCode

MANUAL: Final = "xengt-dm"

#: What each exit status says, for whoever reads it in a script.
STATUSES: Final = {
    ExitCode.OK: "Good.",
    ExitCode.DIFFERS: "An audit found that a shadow differs from the guest's tables, or the guest of `demo` found its "
    "memory wrong.",
    ExitCode.USAGE: "Wrong use: an option or argument that there is not, or with a wrong value.",
    ExitCode.DATA: "Bad data: a trace that is none, an address space that is not live.",
    ExitCode.NO_DOMAIN: "There is no such domain, or it ended before it could be served.",
    ExitCode.UNAVAILABLE: "Something is not there: no daemon, no domain, no Xen, or it refused.",
    ExitCode.INTERNAL: "xengt-dm has a defect; please report it with what it printed.",
    ExitCode.BUSY: "What was asked for has to wait: a daemon still serves the domain, or a recording goes on.",
    ExitCode.PERMISSION: "Not permitted.",
    ExitCode.CONFIG: "The configuration is wrong; the message says where.",
}


@click.command("manual")
@click.argument("page", type=click.Choice(["xengt-dm.8", "xengt-dm.toml.5", "xengt-dm-metrics.7"]))
def command(page: str) -> None:
    """Print a manual page in man(7)'s language."""
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
        "server: it has Xen trap the stores to those pages, performs each store, and keeps shadow tables that say at "
        "each submission what the guest's say, and never map a frame that the guest does not own."
    )
    yield roff.paragraph(
        "`xengt-dm run` is the daemon, one for each domain; `xengt-dm@DOMID.service` runs it under systemd, "
        "`xengt-dm-watch.service` starts and stops these as domains come and go. The other commands ask a daemon over "
        "its control socket, or need none."
    )
    yield roff.heading("commands")
    context = click.Context(main, info_name="xengt-dm")
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
        "Under systemd, entries of the journal with fields `XENGT_EVENT`, `XENGT_DOMID` and one for each fact; on a "
        "terminal coloured lines; elsewhere lines of JSON on standard error. What a guest causes is rate-limited, and "
        "what was held back is told."
    )
    yield roff.example(["journalctl XENGT_DOMID=5", "journalctl XENGT_EVENT=guest.dropped_stores"])
    yield roff.heading("saving and migrating")
    yield roff.paragraph(
        "Xen saves or migrates no domain with pages that trap. Let go of it first, and shadow it again afterwards:"
    )
    yield roff.example(["xengt-dm quiesce --domid 5", "xl save -c guest guest.saved", "xengt-dm resume --domid 5"])
    yield roff.heading("completion")
    yield roff.paragraph("For bash the package brings it. For another shell:")
    yield roff.example(["_XENGT_DM_COMPLETE=zsh_source xengt-dm > ~/.xengt-dm-complete.zsh"])
    yield roff.heading("see also")
    yield "xengt\\-dm.toml(5), xengt\\-dm\\-metrics(7), xl(1), xl.cfg(5), systemd.service(5)"


_FILES: Final = {
    "/etc/xengt-dm/xengt-dm.toml": "The configuration of the host.",
    "/etc/xengt-dm/domains/NAME.toml": "What is different for the domain of that name.",
    "/run/xengt-dm/DOMID/": "What an instance keeps: its control socket, its stats page, the id of its ioreq server.",
}


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    """A command, its options, and those of the commands below it."""
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
        "TOML. `/etc/xengt-dm/xengt-dm.toml` is for the host, `/etc/xengt-dm/domains/NAME.toml` says what is different "
        "for the domain NAME. Options of `xengt-dm run` win over the domain's file, which wins over the host's, which "
        "wins over the defaults; any of the files may be missing. A key is written in its section, or dotted:"
    )
    yield roff.example(["[shadow]", 'mode = "relaxed"'])
    yield roff.example(['shadow.mode = "relaxed"'])
    yield roff.paragraph(
        "A key that there is not, or a value that is not allowed, is refused with the file, the line and the remedy, "
        "and nothing starts. `xengt-dm config check` finds such mistakes beforehand; `xengt-dm config show` "
        "tells what would hold, and where each value comes from. `--set KEY=VALUE` gives a key a value for one run."
    )
    yield roff.paragraph(
        "On SIGHUP a daemon reads the files again. It follows the keys that are marked below, and says in its log "
        "which others would need a new start. If the files are wrong, the old values hold."
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
                facts.append("Followed while running.")
            if key.host_only:
                facts.append("In the host's file only.")
            if key.aliases:
                facts.append(f"Once called {', '.join(key.aliases)}, which is accepted, too.")
            yield roff.item(key.name, key.doc)
            yield f".br\n{roff.prose(' '.join(facts))}"
    yield roff.heading("see also")
    yield "xengt\\-dm(8)"


def _metrics() -> Iterator[str]:
    from xengt_dm.stats.table import METRICS

    yield roff.title("xengt-dm-metrics", 7, __version__, "Miscellanea")
    yield roff.heading("name")
    yield "xengt\\-dm\\-metrics \\- what xengt\\-dm tells Prometheus"
    yield roff.heading("description")
    yield roff.paragraph(
        "`xengt-dm exporter` reads the stats pages of all daemons of a host and serves them to Prometheus; "
        "`xengt-dm exporter --once` prints them. A page that is stale or of no use is left out, and counted."
    )
    yield roff.heading("metrics")
    for metric in METRICS:
        labels = "{" + ",".join(metric.labels) + "}" if metric.labels else ""
        yield roff.item(metric.name + labels, f"{metric.help}.")
        yield f".br\n{roff.prose(f'{metric.kind.value}, {metric.unit}.')}"
    yield roff.heading("see also")
    yield "xengt\\-dm(8)"
