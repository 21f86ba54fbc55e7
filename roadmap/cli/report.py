"""The command that writes a study's report."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from roadmap.cli.group import cli
from roadmap.cli.results import check_no_table, read_foreign, runs_options
from roadmap.cli.study import PLUGIN_OPTION
from roadmap.phases import phase


@cli.command("report")
@click.argument("study", type=click.Path(path_type=Path), metavar="STUDY|RUNS.csv")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="File to write [default: report.html in the study's folder, or beside the table].",
)
@click.option(
    "--diagrams/--no-diagrams",
    default=True,
    help="Build the networks to draw their blocks and receptive fields, the slow part.",
)
@click.option(
    "--with",
    "beside",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="OTHER",
    help="Set the effects of this study beside (repeat: of several, such as of other tasks).",
)
@runs_options
@PLUGIN_OPTION
def report_command(
    study: Path,
    out: Path | None,
    diagrams: bool,
    beside: tuple[Path, ...],
    plugin: tuple[str, ...],
    **settings: Any,
) -> None:
    """Write the report of a study, or of any table of runs: one HTML page that needs only a browser.

    It has the findings, the figure, a row for every step that opens in place (what changes, why, costs, receptive
    fields, block diagrams, curves, test images gained and lost), all tables, and how to repeat the study. STUDY is
    a study's folder. The page is self-contained: it can be sent, and opened offline. It prints with the sections
    that are open; its button, or ?appendix after its address, opens all. Blocks with your own layers are drawn if
    --plugin names their file.

    \b
    roadmap report results/cifar10
    roadmap report runs.csv --design baseline --metric val_acc
    """
    with _uncollected():
        with phase("reading the study"):
            from roadmap.network.layers import load_plugins
            from roadmap.reporting.page import REPORT, report

            load_plugins(plugin)
        what: Any = study
        if study.is_file():
            what = read_foreign(study, settings)
            out = out or study.with_name(f"{study.stem}-{REPORT}")
        else:
            check_no_table(study, settings)
        with phase("writing the report"):
            page = report(what, out, diagrams, beside)
    click.echo(page)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's search for circles of dead objects: it took a seventh of a report's time and freed next to
    nothing (11.5 to 11.8 s with it, 10.0 to 10.5 s without, and as much memory, for the 17 networks of
    results/cifar10)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
