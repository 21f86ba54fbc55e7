"""The command that writes a study's report."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from roadmap.cli.group import cli
from roadmap.markup import printable


@cli.command("report")
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE.html",
              help="File to write [default: report.html in the study's folder].")  # fmt: skip
def report_command(study: Path, output: Path | None) -> None:
    """Write a study's report: one page of HTML that needs nothing but a browser.

    What was found, the figure with its numbers, a section on every step (what changes, why, costs, block diagrams,
    curves, the difference with its interval), all tables, the environment, and how to make it again. STUDY is a study's
    folder. The page has everything within itself: it can be sent, and opened without a network.

    \b
    roadmap report results/cifar10
    """
    from roadmap.reporting.page import report

    click.echo(report(study, output, _show if sys.stderr.isatty() else lambda text: None))


def _show(text: str) -> None:
    """What is being done, on one line of the terminal, which what comes next takes."""
    click.echo(f"\r\033[K{printable(text)[:78]}\r", nl=False, err=True)
