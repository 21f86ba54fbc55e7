"""Commands on results: plot and effects, of a study or of anybody's table of runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from roadmap.checks import RoadmapError, check_number
from roadmap.cli.group import cli, print_effects, with_rows
from roadmap.cli.study import with_questions
from roadmap.formatting import listed
from roadmap.phases import phase
from roadmap.results.drawings import figures


def runs_options(command: Any) -> Any:
    """Options that say how a table of runs from elsewhere is to be understood."""
    from roadmap.questions import questions

    options = [
        click.option("--design", type=click.Choice([*questions()]), help="For a table: its design [default: ladder]."),
        click.option("--metric", metavar="COLUMN", help="The score [default: top1]; of a study also mce, top5, ..."),
        click.option("--step", metavar="COLUMN", help="For a table: the network's name [default: step]."),
        click.option("--seed", metavar="COLUMN", help="For a table: the seed, or none: one per row [default: seed]."),
        click.option("--against", metavar="COLUMN", help="For a table: what each network is compared with."),
        click.option("--baseline", metavar="NETWORK", help="For a table: what all networks are compared with."),
        click.option(
            "--steps",
            metavar="COLUMN,...",
            help="For a table: the column with a network's steps, joined by "
            "+, or one column of true and false for each step.",
        ),
        click.option("--lower-is-better", is_flag=True, help="For a table: a smaller score is a gain."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def read_foreign(path: Path, settings: dict[str, Any], matters: float | None = None) -> Any:
    """The table of runs in a file as a study, understood as the `runs_options` say; remarks go to stderr."""
    with phase("reading the runs"):
        from roadmap.results.foreign import read_runs, read_table
        from roadmap.results.foreign_study import ForeignStudy

    given = {name: value for name, value in settings.items() if value}
    if given.get("seed", "").lower() == "none":
        given["seed"] = None
    if "," in given.get("steps", ""):
        given["steps"] = [name.strip() for name in given["steps"].split(",") if name.strip()]
    try:
        with phase("reading the runs"):
            found = read_runs(read_table(path), **given, matters=matters)
    except RoadmapError as error:
        raise RoadmapError(f"{path}: {error}") from None
    for remark in found.remarks:
        click.echo(remark, err=True)
    return ForeignStudy(found, path.stem)


@cli.command()
@click.argument("study", type=click.Path(path_type=Path), metavar="STUDY|RUNS.csv")
@click.option(
    "--figure",
    "name",
    type=click.Choice([*figures()]),
    help="Figure to draw [default: those that answer the question].",
)
@click.option(
    "--with",
    "other",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="OTHER",
    help="Draw STUDY beside this study (repeat: beside several, such as of other tasks).",
)
@click.option(
    "--width",
    type=click.Choice(["page", "column", "slide"]),
    default="page",
    show_default=True,
    help="A page's 7 inches, a paper column's 3.3 inches, or a 16:9 slide with large type.",
)
@click.option("--title/--no-title", default=True, help="Put the headline into the picture.")
@click.option("--caption/--no-caption", default=None, help="Put the caption into the picture [default: for a page].")
@click.option("--font", metavar="NAME", help="Installed font to use [default: DejaVu Sans].")
@click.option(
    "--x", "--cost", "cost", metavar="COLUMN", help="For pareto: gmacs, params, latency, ... [default: gmacs]."
)
@click.option("--budget", metavar="COST", help="For pareto: what a network may cost, such as 20ms for latency.")
@click.option("--paper", is_flag=True, help="Draw the paper's own accuracies into the trajectory.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder for the files [default: the study's, or the table's].",
)
@runs_options
@with_rows("figures", [(one.name, one.shows) for one in figures().values()])
def plot(
    study: Path,
    name: str | None,
    other: tuple[Path, ...],
    width: str,
    title: bool,
    caption: bool | None,
    font: str | None,
    cost: str | None,
    budget: str | None,
    paper: bool,
    out: Path | None,
    **settings: Any,
) -> None:
    """Draw the figures of a study, or of any table of runs, as .png, .svg and .pdf, and write their captions as .md and
    .tex.

    {figures}

    Without options it writes the same files as `roadmap run`, tables included. Files are named after the figure, with
    --with "comparison", and for a table of runs after the table and the figure, with --metric after the metric and the
    figure; other widths are added to the name.
    """
    with phase("preparing to draw"):
        from roadmap.results.study import load_study, save_drawn, save_results

    look = {"width": width, "caption": caption} | ({} if title else {"title": ""}) | ({"font": font} if font else {})
    of_studies = (("with", other), ("x", cost), ("budget", budget), ("paper", paper))
    if study.is_file():
        if wrong := [option for option, given in of_studies if given]:
            raise RoadmapError(f"--{wrong[0]} is for a study, but {study} is a table of runs")
        if name and not figures()[name].foreign:
            raise RoadmapError(f"{name} cannot be drawn: a table of runs has neither costs nor epochs")
        foreign = read_foreign(study, settings)
        with phase("drawing the figures"):
            paths = foreign.save(_folder(out or study.parent), [name] if name else (), **look)
    elif metric := settings.pop("metric"):
        check_no_table(study, settings)
        if wrong := [option for option, given in of_studies if given]:
            raise RoadmapError(f"--{wrong[0]} is for the study's own score: leave out --metric, or it")
        if name and not figures()[name].foreign:
            raise RoadmapError(f"{name} is of the study's own score: leave out --metric")
        with phase("drawing the figures"):
            paths = measured_by(load_study(study), metric).save(_folder(out or study), [name] if name else (), **look)
    else:
        check_no_table(study, settings)
        if name and other:
            raise RoadmapError("--figure and --with exclude each other")
        with phase("reading the study"):
            loaded = load_study(study)
        drawn = name or loaded.figures[0]
        if paper and (other or drawn != "trajectory"):
            raise RoadmapError("--paper is for the trajectory of a ladder: leave it out")
        of_pareto = (("x", cost), ("budget", budget))
        if drawn != "pareto" and (wrong := [option for option, given in of_pareto if given is not None]):
            raise RoadmapError(f"--{wrong[0]} is for --figure pareto: add that, or leave out --{wrong[0]}")
        folder = _folder(out or study)
        with phase("drawing the figures"):
            if name or other or look != {"width": "page", "caption": None}:
                more: dict[str, Any] = {"against": cost} if cost else {}
                more |= {"budget": parse_budget(budget, cost or "gmacs")} if budget is not None else {}
                paths = save_drawn(loaded, drawn, other, folder, paper, **more, **look)
            else:
                paths = save_results(loaded, folder, paper=paper)
    for path in paths:
        click.echo(path)


def measured_by(study: Any, metric: str) -> Any:
    """The study with another metric than its score; its name says which, for files."""
    from roadmap.results.robustness import with_metric

    return with_metric(study, metric)


#: Units that a budget may be given in, and how many of the column's own each is.
UNITS = {
    "latency": {"": 1.0, "ms": 1.0, "s": 1e3},
    "gmacs": {"": 1.0, "g": 1.0, "m": 1e-3, "gmacs": 1.0, "mmacs": 1e-3},
    "params": {"": 1.0, "k": 1e3, "m": 1e6},
}


def parse_budget(text: str, cost: str) -> float:
    """``20ms``, ``4.5G`` or ``28M`` in the unit of a column of costs. Raises `RoadmapError` for anything else."""
    units = UNITS.get(cost.removesuffix("_p95"), {"": 1.0})
    found = re.fullmatch(r"([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)", text.strip().lower())
    if found is None or found[2] not in units:
        known = listed([unit for unit in units if unit]) or "none"
        raise RoadmapError(
            f"--budget is {text!r}, but must be a number with or without a unit; units of {cost}: {known}"
        )
    return check_number("budget", float(found[1]) * units[found[2]], 0.0)


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
@click.option("--json", "as_json", is_flag=True, help="Print JSON: every column, with all digits.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values: every column.")
@click.option("--latex", is_flag=True, help="Print a table for a paper, for LaTeX with booktabs.")
@click.option("--markdown", is_flag=True, help="Print a table for a paper, as Markdown.")
@click.option(
    "--matters",
    type=float,
    metavar="POINTS",
    help="Smallest difference that matters [default: the study's own, else by its number of test images].",
)
@with_questions("name meaning")
def effects(
    study: Path, as_json: bool, as_csv: bool, latex: bool, markdown: bool, matters: float | None, **settings: Any
) -> None:
    """Print the effect of every step, with its interval and its verdict.

    STUDY is a study's folder, or a table of runs, one per row, as CSV or Parquet: as Weights & Biases and MLflow export
    them, or from your own scripts. Designs:

    {questions}

    All intervals of a study hold at once with 95 %. The verdict is read off the interval: gain or loss if it excludes
    zero, negligible if it lies within the smallest difference that matters (--matters), else open. Of a study --metric
    takes another figure of its test, such as top5, or one of `roadmap eval STUDY`, such as mce.

    \b
    roadmap effects results/cifar10
    roadmap effects runs.csv --design baseline --baseline resnet50 --metric val_acc --step model
    roadmap effects runs.csv --design factorial --steps mixup,ema,deep_stem --metric val_acc
    """
    with phase("preparing to read"):
        from roadmap.results.printing import as_latex, as_markdown
        from roadmap.results.study import load_study

    forms = {"--json": as_json, "--csv": as_csv, "--latex": latex, "--markdown": markdown}
    if len(given := [name for name, wanted in forms.items() if wanted]) > 1:
        raise RoadmapError(f"{' and '.join(given)} exclude each other")
    shown: Any
    if study.is_file():
        shown = read_foreign(study, settings, matters)
    else:
        metric = settings.pop("metric")
        check_no_table(study, settings)
        with phase("reading the study"):
            shown = load_study(study, matters)
        if metric:
            shown = measured_by(shown, metric)
    with phase("estimating the effects"):
        table = shown.effects
    if as_json:
        click.echo(table.to_json(orient="records", indent=1, double_precision=12))
    elif as_csv:
        click.echo(table.to_csv(index=False, lineterminator="\n"), nl=False)
    elif table.empty:
        raise RoadmapError(f"{study} has fewer than two networks to compare")
    elif latex or markdown:
        click.echo((as_latex if latex else as_markdown)(shown.table()), nl=False)
    else:
        print_effects(shown)
