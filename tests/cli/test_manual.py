"""The manual pages: everything that they are made from is in them, and roff takes nothing in it for its own."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

from xengt_dm.cli import COMMANDS, HIDDEN, main, roff
from xengt_dm.cli.manual import STATUSES, command
from xengt_dm.config.keys import KEYS
from xengt_dm.errors import ExitCode
from xengt_dm.stats.table import METRICS

PAGES = ("xengt-dm.8", "xengt-dm.toml.5", "xengt-dm-metrics.7")


def page(name: str) -> str:
    result = CliRunner().invoke(command, [name])
    assert result.exit_code == 0
    return result.output


def plain(text: str) -> str:
    """As it reads."""
    return re.sub(r"\\f[BP]|\\&", "", text).replace("\\-", "-")


@pytest.mark.parametrize("name", PAGES)
def test_every_request_and_escape_is_meant(name: str) -> None:
    lines = page(name).splitlines()
    assert lines[1].startswith(f'.TH "{name.rpartition(".")[0].upper()}" "{name[-1]}" ')
    for line in lines:
        if line.startswith((".", "'")):
            assert re.match(r"\.(TH|SH|SS|PP|TP|B|I|RI|RS|RE|nf|fi|br|\\\")( |$)", line), line
        assert not re.sub(r"\\(-|e|&|fB|fP|\")", "", line).count("\\"), line
        assert line.count(r"\fB") == line.count(r"\fP"), line
    assert '.SH "NAME"' in lines


def test_every_command_and_option_is_there() -> None:
    text = plain(page("xengt-dm.8"))
    context = click.Context(main, info_name="xengt-dm", **main.context_settings)
    for name in COMMANDS:
        assert f'.SS "xengt-dm {name}' in text
        each = main.get_command(context, name)
        assert each is not None
        for parameter in each.params:
            if isinstance(parameter, click.Option):
                assert all(option in text for option in parameter.opts)
    assert set(STATUSES) == set(ExitCode)


def test_every_key_is_there() -> None:
    text = plain(page("xengt-dm.toml.5"))
    for key in KEYS.values():
        assert f".B {key.name}\n" in text
        assert " ".join(key.doc.split()) in text
        assert key.range in text


def test_every_metric_is_there() -> None:
    text = plain(page("xengt-dm-metrics.7"))
    for metric in METRICS:
        assert f".B {metric.name}" in text


def test_a_page_that_there_is_not() -> None:
    assert CliRunner().invoke(command, ["xengt-dm.1"]).exit_code == click.UsageError.exit_code


def test_hidden_commands_work_and_are_not_shown() -> None:
    for name in HIDDEN:
        assert main.get_command(click.Context(main), name) is not None
        assert name not in main.list_commands(click.Context(main))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (".SH and\n 'x'", r"\&.SH and 'x'"),
        (r"a\nb", r"a\enb"),
        ("`a --b` --c-d, x-y (--e)", r"\fBa \-\-b\fP \fB\-\-c\-d\fP, x\-y (\fB\-\-e\fP)"),
        ("`--once` prints", r"\fB\-\-once\fP prints"),
    ],
)
def test_prose(text: str, meant: str) -> None:
    assert roff.prose(text) == meant
