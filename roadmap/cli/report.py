"""The command that writes a study's report."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from roadmap.cli.group import cli
from roadmap.cli.study import PLUGIN_OPTION
from roadmap.markup import printable


@cli.command("report")
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE.html",
              help="File to write [default: report.html in the study's folder].")  # fmt: skip
@PLUGIN_OPTION
def report_command(study: Path, output: Path | None, plugin: tuple[str, ...]) -> None:
    """Write a study's report: one page of HTML that needs nothing but a browser.

    What was found, the figure with its numbers, a section on every step (what changes, why, costs, block diagrams,
    curves, the difference with its interval), all tables, the environment, and how to make it again. STUDY is a study's
    folder. The page has everything within itself: it can be sent, and opened without a network. Blocks with a layer of
    your own are drawn where its file is named (--plugin).

    \b
    roadmap report results/cifar10
    """
    from roadmap.network.layers import load_plugins
    from roadmap.reporting.page import report

    load_plugins(plugin)
    click.echo(report(study, output, _show if sys.stderr.isatty() else lambda text: None))


def _show(text: str) -> None:
    """What is being done, on one line of the terminal, which what comes next takes."""
    click.echo(f"\r\033[K{printable(text)[:78]}\r", nl=False, err=True)
