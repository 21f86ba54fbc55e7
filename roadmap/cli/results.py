"""Commands on what came out: plot and effects, of a study or of anybody's table of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from roadmap.checks import RoadmapError
from roadmap.cli.group import cli, print_effects
from roadmap.cli.study import with_questions

#: The figures that there are, by the methods that draw them.
FIGURES = ("trajectory", "ablation", "interactions", "levels", "pareto", "curves")


def runs_options(command: Any) -> Any:
    """Options that say how a table of runs from elsewhere is to be understood."""
    from roadmap.questions import questions

    options = [
        click.option("--design", type=click.Choice([*questions()]), help="Of a table: the question [default: ladder]."),
        click.option("--metric", metavar="COLUMN", help="Of a table: the score [default: top1]."),
        click.option("--step", metavar="COLUMN", help="Of a table: the network's name [default: step]."),
        click.option("--seed", metavar="COLUMN", help="Of a table: the seed [default: seed]; none: every row is one."),
        click.option("--against", metavar="COLUMN", help="Of a table: what each network is compared with."),
        click.option("--baseline", metavar="NETWORK", help="Of a table: what all networks are compared with."),
        click.option("--steps", metavar="COLUMN,...", help="Of a table: the column with the steps in a network, joined "
                     "by +, or several columns of true and false, one a step."),
        click.option("--lower-is-better", is_flag=True, help="Of a table: a smaller score is a gain."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def read_foreign(path: Path, settings: dict[str, Any], matters: float | None = None) -> Any:
    """The table of runs in a file as a study, understood as the `runs_options` say; remarks go to stderr."""
    from roadmap.analysis.foreign import read_runs, read_table
    from roadmap.analysis.foreign_study import ForeignStudy

    given = {name: value for name, value in settings.items() if value}
    if given.get("seed", "").lower() == "none":
        given["seed"] = None
    if "," in given.get("steps", ""):
        given["steps"] = [name.strip() for name in given["steps"].split(",") if name.strip()]
    try:
        found = read_runs(read_table(path), **given, matters=matters)
    except RoadmapError as error:
        raise RoadmapError(f"{path}: {error}") from None
    for remark in found.remarks:
        click.echo(remark, err=True)
    return ForeignStudy(found, path.stem)


@cli.command()
@click.argument("study", type=click.Path(path_type=Path), metavar="STUDY|RUNS.csv")
@click.option(
    "--figure", "name", type=click.Choice(FIGURES), help="Which figure [default: those that answer the question]."
)
@click.option("--with", "other", type=click.Path(path_type=Path), metavar="OTHER", help="Draw STUDY beside OTHER.")
@click.option(
    "--width",
    type=click.Choice(["page", "column", "slide"]),
    default="page",
    show_default=True,
    help="7 inches, the 3.3 inches of a column of a paper, or a slide of 16:9 with large type.",
)
@click.option("--title/--no-title", default=True, help="The headline in the picture.")
@click.option("--caption/--no-caption", default=None, help="The caption in the picture [default: on a page].")
@click.option("--font", metavar="NAME", help="An installed font [default: DejaVu Sans].")
@click.option("--cost", metavar="COLUMN", help="Of pareto: gmacs, params, images_per_second, ... [default: gmacs].")
@click.option("--paper", is_flag=True, help="Draw the paper's own accuracies beside the trajectory.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where the files go [default: beside what is read].",
)
@runs_options
def plot(
    study: Path,
    name: str | None,
    other: Path | None,
    width: str,
    title: bool,
    caption: bool | None,
    font: str | None,
    cost: str | None,
    paper: bool,
    out: Path | None,
    **settings: Any,
) -> None:
    """Draw the figures of a study, or of anybody's table of runs, as .png, .svg and .pdf, and write their captions as
    .md and .tex.

    \b
    trajectory     where a ladder led, step by step, and what it costs
    ablation       what every step is worth, with its interval
    interactions   which steps need each other
    levels         accuracy over the levels of a flag
    pareto         accuracy against a cost
    curves         accuracy by epoch

    Without options it draws what `roadmap run` leaves, tables included. The files are called as the figure, of --with
    OTHER as "comparison", of a table of runs as the table and the figure; those of other widths end in it.
    """
    from roadmap.analysis.study import load_study, save_drawn, save_results

    look = {"width": width, "caption": caption} | ({} if title else {"title": ""}) | ({"font": font} if font else {})
    if study.is_file():
        if wrong := [option for option, given in (("with", other), ("cost", cost), ("paper", paper)) if given]:
            raise RoadmapError(f"--{wrong[0]} is for a study, but {study} is a table of runs")
        if name in ("pareto", "curves"):
            raise RoadmapError(f"a table of runs has no costs and no epochs, and so no figure {name}")
        foreign = read_foreign(study, settings)
        paths = foreign.save(_folder(out or study.parent), [name] if name else (), **look)
    else:
        check_no_table(study, settings)
        if name and other:
            raise RoadmapError("--figure and --with exclude each other")
        loaded = load_study(study)
        drawn = name or loaded.figures[0]
        if paper and (other or drawn != "trajectory"):
            raise RoadmapError("--paper belongs to the trajectory of a ladder")
        if cost and drawn != "pareto":
            raise RoadmapError("--cost belongs to --figure pareto")
        folder = _folder(out or study)
        if name or other or look != {"width": "page", "caption": None}:
            more = {"against": cost} if cost else {}
            paths = save_drawn(loaded, drawn, other, folder, paper, **more, **look)
        else:
            paths = save_results(loaded, folder, paper=paper)
    for path in paths:
        click.echo(path)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def check_no_table(study: Path, settings: dict[str, Any]) -> None:
    """Raise `RoadmapError` where something is said of a table of runs, and there is none."""
    if wrong := [name for name, value in settings.items() if value]:
        raise RoadmapError(f"--{wrong[0].replace('_', '-')} is for a table of runs, but {study} is not a file")


@cli.command()
@click.argument("study", type=click.Path(path_type=Path), metavar="STUDY|RUNS.csv")
@runs_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, every column with all its digits.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values, all columns.")
@click.option("--latex", is_flag=True, help="Print the table of a paper, for LaTeX with booktabs.")
@click.option("--markdown", is_flag=True, help="Print the table of a paper as Markdown.")
@click.option("--matters", type=float, metavar="POINTS", help="The smallest difference that matters [default: the "
              "study's, else by its number of test images].")  # fmt: skip
@with_questions("name meaning")
def effects(
    study: Path, as_json: bool, as_csv: bool, latex: bool, markdown: bool, matters: float | None, **settings: Any
) -> None:
    """What every step is worth, with its interval and its verdict.

    STUDY is the folder of a study, or a table of anybody's runs, one a row, as CSV or Parquet: as Weights & Biases and
    MLflow export them, or from scripts of your own. Questions:

    {questions}

    All intervals of a study hold at once with 95 %. The verdict is read off the interval: gain or loss where it
    excludes zero, negligible where it lies within the smallest difference that matters (--matters), else open.

    \b
    roadmap effects results/cifar10
    roadmap effects runs.csv --design baseline --baseline resnet50 --metric val_acc --step model
    roadmap effects runs.csv --design factorial --steps mixup,ema,deep_stem --metric val_acc
    """
    from roadmap.analysis.printing import as_latex, as_markdown
    from roadmap.analysis.study import load_study

    forms = {"--json": as_json, "--csv": as_csv, "--latex": latex, "--markdown": markdown}
    if len(given := [name for name, wanted in forms.items() if wanted]) > 1:
        raise RoadmapError(f"{' and '.join(given)} exclude each other")
    shown: Any
    if study.is_file():
        shown = read_foreign(study, settings, matters)
    else:
        check_no_table(study, settings)
        shown = load_study(study, matters)
    table = shown.effects
    if as_json:
        click.echo(table.to_json(orient="records", indent=1, double_precision=12))
    elif as_csv:
        click.echo(table.to_csv(index=False, lineterminator="\n"), nl=False)
    elif table.empty:
        raise RoadmapError(f"{study} has no two networks to compare with each other")
    elif latex or markdown:
        click.echo((as_latex if latex else as_markdown)(shown.table()), nl=False)
    else:
        print_effects(shown)
