"""Commands on a study: run, plan and plot."""

from __future__ import annotations

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from roadmap.cli.group import PartOption, Sections, cli, print_effects, print_table, with_rows
from roadmap.formatting import plural
from roadmap.markup import ranges
from roadmap.phases import phase

if TYPE_CHECKING:
    from roadmap.settings import Setting

#: Settings of a study that most commands give: those that --help shows.
COMMON = (
    "from_",
    "upto",
    "only",
    "design",
    "steps",
    "task",
    "data",
    "data_dir",
    "image_size",
    "recipe",
    "seeds",
    "epochs",
    "device",
)


def study_options(command: Any, ablation: bool = True) -> Any:
    """One option a field of `StudySpec`, which holds names, choices and help, and one a setting of the `Recipe`;
    without those of the ``ablation`` where a command trains a single network."""
    from roadmap.planning.spec import study_settings
    from roadmap.questions import question_settings
    from roadmap.recipes.recipe import SETTINGS

    taken = {parameter.name for parameter in getattr(command, "__click_params__", [])}
    own = study_settings()
    place = [*own].index("reference")
    ordered = [*[*own.items()][:place], *question_settings().items(), *[*own.items()][place:]]
    for name, one in reversed(ordered):
        if name not in taken and (ablation or one.part != "ablation"):
            default = "" if one.default in (None, (), False) else f" [default: {one.default}]"
            command = _option(name, one, one.part, default, name in COMMON)(command)
    for name, one in reversed(SETTINGS.items()):
        command = _option(name, one, "recipe")(command)
    return command


def _option(name: str, setting: Setting, part: str, default: str = "", common: bool = False) -> Any:
    text = setting.help[0].upper() + setting.help[1:]
    options: dict[str, Any] = {"help": f"{text}.{default}", "cls": PartOption, "part": part, "common": common}
    flags = f"--{setting.name.replace('_', '-')}"
    if setting.kind is bool:
        flags += f"/--no-{flags[2:]}"
    elif setting.choices:
        options["type"] = click.Choice([str(choice) for choice in setting.choices])
        options["callback"] = lambda context, option, value: None if value is None else setting.kind(value)
    else:
        options |= {"metavar": setting.metavar, "multiple": setting.repeat}
        if not setting.repeat and name != "seeds":
            options["callback"] = lambda context, option, value: None if value is None else setting.from_text(value)
    return click.option(flags, name, default=None, **options)


def _setting_option(name: str) -> Any:
    """The option of one field of `StudySpec`, for a command that takes no other."""
    from roadmap.planning.spec import study_settings

    return _option(name, study_settings()[name], "", common=True)


PLUGIN_OPTION = _setting_option("plugin")
STUDY_ARGUMENT = click.argument("study", required=False, type=click.Path(path_type=Path), metavar="[STUDY.yaml]")
OUT_OPTION = click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder for tables and figure [default: results/NAME].",
)
STORE_OPTION = click.option(
    "--store",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder of the runs, shared by studies [default: $ROADMAP_STORE, else results/store].",
)


RESUME_OPTION = click.option(
    "--resume", is_flag=True, help="Continue a study that was begun in the output folder; start no new one."
)
RETRAIN_OPTION = click.option(
    "--retrain",
    type=click.Choice(["failed", "all"]),
    cls=PartOption,
    help="First remove the study's failed runs, or all of them, from the store.",
)
DRY_RUN_OPTION = click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would run and its cost; train nothing, and write nothing but times measured for --match.",
)


def with_questions(columns: str) -> Any:
    """A decorator that puts a line about every question in the place of ``{questions}`` in a command's help:
    ``columns`` names two attributes of a `Question`."""
    from roadmap.questions import questions

    left, right = columns.split()
    rows = [(getattr(question, left), getattr(question, right)) for question in questions().values()]
    return with_rows("questions", rows)


@cli.command(cls=Sections)
@STUDY_ARGUMENT
@study_options
@OUT_OPTION
@STORE_OPTION
@RESUME_OPTION
@RETRAIN_OPTION
@click.option("--paper", is_flag=True, cls=PartOption, help="Draw the paper's own accuracies into the figure.")
@DRY_RUN_OPTION
@with_questions("example asks")
def run(
    study: Path | None,
    out: Path | None,
    store: Path | None,
    resume: bool,
    retrain: str | None,
    paper: bool,
    dry_run: bool,
    **settings: Any,
) -> None:
    """Train the networks of an ablation, by default the rungs of the ladder, and draw the result.

    Without options: every rung on the embedded data set, on this machine, with five seeds each. STUDY.yaml holds the
    same settings, one per line; options given here replace them. --design says which networks answer the question:

    {questions}

    Writes to the output folder: trajectory.csv (one row per run), curves.csv (one row per epoch), effects.csv (one row
    per effect) and the figure as .png, .svg and .pdf. Records and trained weights of the runs go to the store. A run in
    the store is not trained again, by any study, unless --retrain says so: the same command again continues with the
    missing runs. Ctrl-C finishes the running epochs, saves and stops; a second Ctrl-C stops at once.

    With --until-resolved POINTS seeds are added in rounds, where they decide most, until every effect is a gain, a
    loss, or known to within that many percentage points, up to --most-seeds per network and within --budget.
    """
    prepared, folder, place = _prepare(study, out, store, settings)
    if dry_run:
        _print_plan(prepared, folder, place, measure=False)
    else:
        _execute(prepared, folder, place, resume, retrain, paper)


@cli.command(cls=Sections)
@partial(study_options, ablation=False)
@click.argument("start_from", metavar="RUN_OR_CHECKPOINT")
@OUT_OPTION
@STORE_OPTION
@RESUME_OPTION
@RETRAIN_OPTION
@DRY_RUN_OPTION
def finetune(
    start_from: str,
    out: Path | None,
    store: Path | None,
    resume: bool,
    retrain: str | None,
    dry_run: bool,
    **settings: Any,
) -> None:
    """Train a network further: on other images, at another resolution, with another classifier.

    RUN_OR_CHECKPOINT is a run of the store, given by its signature or the beginning of it, or a weights file in our
    layout, timm's or the official one. If the file does not say which network it is for, name it with --only STEP, and
    --regime, --width, --depth and --stem-stride. If the classes are the same the classifier is kept, else it is
    initialised anew. One seed and recipe finetune-1k, unless --seeds and --recipe say otherwise. The runs are kept in
    the store like any others.

    \b
    roadmap finetune 3f2a --recipe finetune-384 --data imagenet --data-dir PATH
    roadmap finetune convnext_tiny.pth --only separate_downsample --data folder --data-dir PATH --epochs 10
    """
    prepared, folder, place = _prepare(None, out, store, {**settings, "start_from": start_from}, seeds=1)
    if dry_run:
        _print_plan(prepared, folder, place, measure=False)
    else:
        _execute(prepared, folder, place, resume, retrain)


def _execute(prepared: Any, folder: Path, place: Any, resume: bool, retrain: str | None, paper: bool = False) -> None:
    """Train a study, say where its results are, and exit with 1 where runs failed."""
    with phase("preparing to train"):
        from roadmap.api import execute
        from roadmap.running.display import make_display
        from roadmap.store.folder import TABLE

    words = [word for word in sys.argv[1:] if word != "--resume"]
    try:
        command = shlex.join(["roadmap", *sys.argv[1:]])
        results = execute(prepared, folder, place, make_display(), command, resume, retrain, paper)
    except KeyboardInterrupt:
        again = shlex.join(["roadmap", *_without_retrain(words), "--resume"])
        click.echo(f"\nstopped; finished runs are kept. To continue: {again}", err=True)
        sys.exit(130)
    click.echo(f"results: {folder}/{', '.join([TABLE, *results.file_names])}; runs: {place.folder}")
    _print_times(results.runs)
    _print_data_time(results.runs)
    if len(results.effects):
        print_effects(results)
        click.echo(f"next: roadmap report {shlex.quote(str(folder))}")
    failed = results.runs[results.runs["status"] != "done"]
    if len(failed):
        click.echo(f"{len(failed)} of {results.runs['signature'].nunique()} runs failed:", err=True)
        for row in failed.itertuples():
            click.echo(f"  {row.step} seed {row.seed} ({row.signature}): {row.reason}", err=True)
        sys.exit(1)


def _prepare(
    study: Path | None, out: Path | None, store: Path | None, settings: dict[str, Any], **defaults: Any
) -> Any:
    """(prepared study, its folder, its store) from the options of a command."""
    with phase("reading the study"):
        from roadmap.planning.reading import load_spec
        from roadmap.running.preparing import prepare
        from roadmap.running.runner import default_folder
        from roadmap.store.store import store_at

        source = click.get_current_context().get_parameter_source
        given = {name: value for name, value in settings.items() if source(name) is not ParameterSource.DEFAULT}
        spec = load_spec(study, **(defaults | given))
    place = store_at(store)
    prepared = prepare(spec, place)
    for remark in prepared.remarks:
        click.echo(remark, err=True)
    return prepared, out or default_folder(prepared), place


def _without_retrain(words: list[str]) -> list[str]:
    """The same command, but what was forgotten once is not forgotten again."""
    kept = [word for word in words if not word.startswith("--retrain=")]
    if "--retrain" in kept:
        place = kept.index("--retrain")
        del kept[place : place + 2]
    return kept


def _print_times(runs: Any) -> None:
    """The real time beside the estimate, where there was one."""
    known = runs[runs["estimated_seconds"].notna() & (runs["status"] == "done")]
    if len(known):
        real, estimated = known["wall_seconds"].sum(), known["estimated_seconds"].sum()
        ratio = real / estimated
        click.echo(f"{plural(len(known), 'run')} took {real:.0f} s, estimated {estimated:.0f} s (ratio {ratio:.2f})")


def _print_data_time(runs: Any) -> None:
    """The share of the training that was spent waiting for batches."""
    known = runs[runs["data_seconds"].notna() & (runs["seconds"] > 0)]
    if len(known):
        shares = 100 * known["data_seconds"] / known["seconds"]
        share = 100 * known["data_seconds"].sum() / known["seconds"].sum()
        most = known.loc[shares.idxmax()]
        click.echo(
            f"waiting for images took {share:.1f} % of the training time, at most {shares.max():.1f} % ({most['step']})"
        )


@cli.command("plan", cls=Sections)
@STUDY_ARGUMENT
@study_options
@OUT_OPTION
@STORE_OPTION
@click.option("--again", is_flag=True, help="Measure again what was measured before.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan_command(
    study: Path | None, out: Path | None, store: Path | None, again: bool, as_json: bool, **settings: Any
) -> None:
    """Show what a study would train, its cost and time, and when it would end; nothing is trained.

    Takes the same settings as `roadmap run`. Every network that is not in the store yet trains for a few real steps
    here, with as many runs side by side as in the study; time and memory are measured, not guessed, and kept in the
    store for later. On the CPU large batches are measured in part and scaled up (marked ~).
    """
    prepared, folder, place = _prepare(study, out, store, settings)
    _print_plan(prepared, folder, place, again, as_json)


def _print_plan(
    prepared: Any, folder: Path, store: Any, again: bool = False, as_json: bool = False, measure: bool = True
) -> None:
    with phase("planning the study"):
        from roadmap.cost.counting import CONVENTION
        from roadmap.results.planned import plan_resolution
        from roadmap.running.estimate import plan_ahead
        from roadmap.running.progress import clock, end_time

    ahead = plan_ahead(prepared, store, again, measure)
    with phase("computing what the plan can resolve"):
        resolution = plan_resolution(prepared, store)
    if as_json:
        told = None if resolution is None else resolution.to_dict()
        click.echo(json.dumps(ahead.to_dict() | {"resolution": told}, indent=1))
        return
    data = prepared.data
    click.echo(
        f"data: {data.name}, {len(data.train)} training and {len(data.test)} test images of {data.image_size} px, "
        f"{len(data.class_names)} classes; device: {prepared.device}; results would go to {folder}"
    )
    if prepared.runs[0].head is not None:
        click.echo(f"task: {prepared.spec.asked_task.title}; head: {prepared.runs[0].head}")
    print_table(_plan_rows(prepared, ahead))
    for remark in prepared.ablation.remarks if prepared.ablation else []:
        click.echo(remark)
    if resolution is not None:
        click.echo(resolution)
    total, left = (sum(prepared.petaflops(run) for run in runs) for runs in (prepared.trainings, ahead.todo))
    count = len(prepared.trainings)
    click.echo(f"{plural(count, 'run')}, {total:.3g} PFLOPs of training (6 operations a multiply-accumulate)")
    click.echo(f"{count - len(ahead.todo)} are in {store.folder}; {len(ahead.todo)} to train, {left:.3g} PFLOPs")
    for step, reason in ahead.refused.items():
        click.echo(f"{step}: {reason}")
    if ahead.end is not None:
        first, jobs = ahead.places[0], len(ahead.places)
        threads = plural(first.threads or 1, "thread")
        pinned = ", pinned to cores of their own" if first.cores else ""
        beside = (
            f"{jobs} runs side by side with {threads} each{pinned}" if jobs > 1 else f"one run at a time, {threads}"
        )
        click.echo(f"{beside}: {clock(ahead.end)}; started now it would end at {end_time(ahead.end)}")
        if any(estimate.scaled for estimate in ahead.estimates.values()):
            click.echo("~: measured with smaller batches, and scaled up")
    elif measure and prepared.spec.engine != "local":
        click.echo(f"time and memory are measured for --engine local, not for {prepared.spec.engine}")
    click.echo(CONVENTION)


def _plan_rows(prepared: Any, ahead: Any) -> list[dict[str, Any]]:
    from roadmap.planning.runs import steps_of
    from roadmap.running.progress import clock

    rows = []
    waiting = {run.signature for run in ahead.todo}
    for step in steps_of(prepared.runs):
        runs = [run for run in prepared.runs if run.step == step]
        cost, recipe = prepared.cost(runs[0]), runs[0].recipe
        todo = [run for run in runs if run.signature in waiting]
        row = {
            "step": step,
            "GMACs": f"{cost.gmacs:.4f}",
            **({"backbone": f"{cost.backbone['backbone_gmacs']:.4f}"} if cost.backbone else {}),
            "params M": f"{cost.params / 1e6:.3f}",
            **({prepared.spec.match_by: _factor(runs[0])} if prepared.spec.match else {}),
            "recipe": recipe.name,
            "optimizer": recipe.optimizer,
            "lr": f"{recipe.peak_lr:.3g}",
            "batch": recipe.batch_size,
            "epochs": recipe.epochs,
            "steps": prepared.steps(runs[0]),
            "seeds": ranges(run.seed for run in runs),
            "PFLOPs": f"{sum(prepared.petaflops(run) for run in runs):.3g}",
            "in store": len(runs) - len(todo),
        }
        if ahead.estimates:
            known = ahead.estimates[todo[0].signature] if todo else None
            spans = [ahead.times[run.signature] for run in todo if run.signature in ahead.times]
            mark = "~" if known and known.scaled else ""
            row |= {
                "a run": f"{mark}{clock(known.seconds)}" if known and known.seconds else "no" if known else "",
                "MiB": f"{mark}{known.memory_bytes / 2**20:.0f}" if known and known.memory_bytes else "",
                "from": clock(min(start for _, start, _ in spans)) if spans else "",
                "to": clock(max(end for _, _, end in spans)) if spans else "",
            }
        rows.append(row)
    return rows


def _factor(run: Any) -> str:
    """What a match multiplies a network's widths or blocks by."""
    return "as it is" if run.match_factor is None else f"x {run.match_factor:.3f}"
