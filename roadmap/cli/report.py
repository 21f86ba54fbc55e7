"""The command that writes a study's report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from roadmap.cli.group import cli
from roadmap.cli.results import check_no_table, read_foreign, runs_options
from roadmap.cli.study import PLUGIN_OPTION
from roadmap.markup import printable


@cli.command("report")
@click.argument("study", type=click.Path(path_type=Path), metavar="STUDY|RUNS.csv")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE.html",
              help="File to write [default: report.html in the study's folder, of a table beside it].")  # fmt: skip
@click.option("--diagrams/--no-diagrams", default=True, help="Draw the blocks of every step, the slow part.")
@runs_options
@PLUGIN_OPTION
def report_command(study: Path, output: Path | None, diagrams: bool, plugin: tuple[str, ...], **settings: Any) -> None:
    """Write the report of a study, or of anybody's table of runs: one page of HTML that needs nothing but a browser.

    What was found, the figure, a row for every step that opens in place (what changes, why, costs, block diagrams,
    curves, test images gained and lost), all tables, and how to repeat it. STUDY is a study's folder. The page has
    everything within itself: it can be sent, and opened without a network. In print it has what is open; its button, or
    ?appendix behind its address, opens all. Blocks with a layer of your own are drawn where its file is named
    (--plugin).

    \b
    roadmap report results/cifar10
    roadmap report runs.csv --design baseline --metric val_acc
    """
    from roadmap.network.layers import load_plugins
    from roadmap.reporting.page import REPORT, report

    load_plugins(plugin)
    what: Any = study
    if study.is_file():
        what = read_foreign(study, settings)
        output = output or study.with_name(f"{study.stem}-{REPORT}")
    else:
        check_no_table(study, settings)
    click.echo(report(what, output, _show if sys.stderr.isatty() else lambda text: None, diagrams))


def _show(text: str) -> None:
    """What is being done, on one line of the terminal, which what comes next takes."""
    click.echo(f"\r\033[K{printable(text)[:78]}\r", nl=False, err=True)
