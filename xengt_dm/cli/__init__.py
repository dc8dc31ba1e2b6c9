"""The command ``xengt-dm``. Each subcommand is a module of its own, which is imported only when it is used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click
from click.shell_completion import CompletionItem

from xengt_dm import __version__
from xengt_dm.cli import errors
from xengt_dm.cli.streams import ensure_standard_streams
from xengt_dm.errors import ExitCode

#: Subcommands and their help texts. The command is ``command`` in the module ``xengt_dm.cli.NAME``.
COMMANDS: Final = {
    "create": "Create a domain and start its instance.",
    "start": "Start the instance of a domain in the background.",
    "run": "Serve a domain.",
    "watch": "Start and stop instances as domains come and go.",
    "reap": "Clean up after a daemon that died.",
    "demo": "Run a guest on the embedded hypervisor, without Xen.",
    "sim": "Run a domain without Xen, for `run --sim`.",
    "config": "Show and check the configuration.",
    "check": "Report what this host has and lacks for `run`.",
    "replay": "Run a trace on the embedded hypervisor.",
    "list": "List the daemons of this host.",
    "top": "Watch the daemons of this host, live.",
    "status": "Show the state and the counters of a daemon.",
    "spaces": "List the address spaces of a domain's GPU.",
    "walk": "Resolve a GPU address.",
    "dump": "Show everything that a domain's GPU has mapped.",
    "audit": "Compare the shadow tables with the guest's tables.",
    "decode": "Show the commands of a GPU's engine, of a domain or of a file.",
    "protected": "List the page tables that are shadowed.",
    "registers": "Show the registers of a domain's GPU, decoded.",
    "mode": "Show or switch the mode of the shadows, strict or relaxed.",
    "quiesce": "Unprotect a domain so that it can be saved or migrated.",
    "resume": "Shadow a quiesced domain again.",
    "exporter": "Serve the metrics of this host's daemons to Prometheus.",
    "record": "Record what a guest does, for `replay`.",
    "upgrade": "Replace daemons by those of the installed version; their guests notice a pause.",
    "stop": "Stop a daemon; its domain continues without traps.",
}
#: Commands that help does not mention. The build of the package needs them.
HIDDEN: Final = ("manual",)


class LazyGroup(click.Group):
    """A group of commands whose names are in :data:`COMMANDS`. It imports only the command that is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of all commands, without importing their modules."""
        return [*COMMANDS]  # not list(COMMANDS): once xengt_dm.cli.list was imported, `list` is that module

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command's module. Returns the command, or None if there is none of this name."""
        if cmd_name not in COMMANDS and cmd_name not in HIDDEN:
            return None
        command = importlib.import_module(f"xengt_dm.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, and names a command that is near one which does not exist."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib  # only a mistake needs it

            near = difflib.get_close_matches(args[0][:50], COMMANDS, n=1)
            if near and "Did you mean" not in error.message:
                raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", error.ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands for --help, without importing their modules."""
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Returns the completions of an incomplete command's name."""
        names = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Runs a command and ends the process. Every failure is reported by :func:`errors.report`."""
        ensure_standard_streams()
        try:
            status = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except BaseException as error:
            status = errors.report(error)
        sys.exit(status if isinstance(status, int) else ExitCode.OK)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command. Returns what the command returns."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise errors.ClosedPipe from error  # click would end with status 1


@click.group(
    cls=LazyGroup,
    subcommand_metavar="COMMAND [ARGS]...",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, "-V", "--version", prog_name="xengt-dm", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Xen device model that shadows a virtual Intel GPU's page tables.

    Exit status: 0 success, 1 an audit found a difference, 64 wrong use, 65 bad data, 68 no such domain, 69 something is
    unavailable, 70 a bug in xengt-dm, 75 busy, 76 a daemon does not answer, 77 not permitted, 78 bad configuration, 79
    (of `run` only) handed over.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(ExitCode.USAGE)
