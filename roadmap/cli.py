"""The command line: words to calls, and one sentence for every mistake."""

from __future__ import annotations

import dataclasses
import functools
import json
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

import click

from roadmap import __version__
from roadmap.checks import RoadmapError, check_int, check_number, nearest
from roadmap.network.design import STEM_STRIDES
from roadmap.rungs import FULL_WIDTH, REGIMES, Ladder, ladder


def ladder_options(command: Any) -> Any:
    """Options for a ladder of some size, which the command receives as ``rungs``, and for the size of its images."""

    @functools.wraps(command)
    def with_ladder(regime: str, width: int, depth: float, stem_stride: str, image_size: int, **options: Any) -> None:
        check_int("image size", image_size, 1, 4096)
        rungs = ladder(regime).scaled(width, depth, stem_stride=int(stem_stride))
        command(rungs=rungs, image_size=image_size, **options)

    strides = click.Choice([str(stride) for stride in STEM_STRIDES])
    for flag, kind, default, text in (
        ("--stem-stride", strides, "4", "What the stem divides the image by."),
        ("--depth", float, 1.0, "Factor on the blocks of every stage."),
        ("--width", int, FULL_WIDTH, "Base width of the start in channels."),
        ("--image-size", int, 224, "Side of the images in pixels."),
        ("--regime", click.Choice(list(REGIMES)), "resnet50", "The paper's ladder: from ResNet-50 or ResNet-200."),
    ):
        with_ladder = click.option(flag, type=kind, default=default, show_default=True, help=text)(with_ladder)
    return with_ladder


class OneSentence(click.Group):
    """Unknown commands are answered with the nearest one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise RoadmapError(f"unknown command '{args[0]}'{nearest(args[0], self.commands)}; see roadmap --help")
        return super().resolve_command(ctx, args)


@click.group(cls=OneSentence, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def cli() -> None:
    """The road from ResNet to ConvNeXt, one design choice at a time: what each changes, costs and brings.

    \b
    roadmap steps                        the ladder as a table: what each step changes and costs
    roadmap run --upto large_kernel      train every step up to that one, and draw the trajectory
    roadmap run experiments/ladder.yaml  train the study in a file
    """


def study_options(command: Any) -> Any:
    """One option a field of `StudySpec`, which holds names, choices and help."""
    from roadmap.study.spec import StudySpec, option_name

    for field in reversed(dataclasses.fields(StudySpec)):
        words = field.metadata
        options: dict[str, Any] = {"help": words["help"][0].upper() + words["help"][1:] + ".", "default": None}
        flags = f"--{option_name(field.name).replace('_', '-')}"
        if isinstance(field.default, bool):
            flags += f"/--no-{flags[2:]}"
        elif field.name == "only":
            options |= {"multiple": True, "metavar": words["metavar"]}
        elif "choices" in words:
            kind = type(words["choices"][0])
            options["type"] = click.Choice([str(choice) for choice in words["choices"]])
            if kind is int:
                options["callback"] = lambda context, option, value: None if value is None else int(value)
        else:
            annotation = str(field.type)
            options["metavar"] = words["metavar"]
            options["type"] = float if "float" in annotation else int if annotation.startswith("int") else str
        if field.default not in (None, (), False):
            options["help"] += f" [default: {'0,1,2' if field.name == 'seeds' else field.default}]"
        command = click.option(flags, field.name, **options)(command)
    return command


STUDY_ARGUMENT = click.argument("study", required=False, type=click.Path(path_type=Path), metavar="[STUDY.yaml]")
OUT_OPTION = click.option(
    "--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Folder of table and figure [default: results/NAME]."
)
STORE_OPTION = click.option(
    "--store", type=click.Path(path_type=Path), metavar="FOLDER", envvar="ROADMAP_STORE",
    help="Folder of the runs, shared by studies [default: $ROADMAP_STORE, else results/store].",
)  # fmt: skip


@cli.command()
@STUDY_ARGUMENT
@study_options
@OUT_OPTION
@STORE_OPTION
@click.option("--resume", is_flag=True, help="Only go on with a study that was begun in the output folder.")
@click.option("--retrain", type=click.Choice(["failed", "all"]), help="Forget the study's failed runs, or all, before.")
@click.option("--paper", is_flag=True, help="Draw the paper's own points into the figure.")
@click.option("--dry-run", is_flag=True, help="Say what would run and what it would cost; start and write nothing.")
def run(
    study: Path | None, out: Path | None, store: Path | None, resume: bool, retrain: str | None, paper: bool,
    dry_run: bool, **settings: Any,
) -> None:  # fmt: skip
    """Train the rungs of the ladder and draw the trajectory.

    Without options: every rung on the embedded data set, on this machine, three seeds each. STUDY.yaml holds the same
    settings, one a line; options given here replace them.

    Leaves in the output folder: trajectory.csv (a row a run), trajectory.png and .svg. Records and trained weights of
    the runs are in the store. A run that is there is never trained again, by any study, unless --retrain says so: the
    same command again goes on with what is missing. Ctrl-C finishes the running epochs, saves and stops; twice stops
    at once.
    """
    from roadmap.api import carry_out
    from roadmap.study.display import make_display

    prepared, folder, place = _prepare(study, out, store, settings)
    if dry_run:
        _print_plan(prepared, folder)
        return
    words = [word for word in sys.argv[1:] if word != "--resume"]
    try:
        command = shlex.join(["roadmap", *sys.argv[1:]])
        results = carry_out(prepared, folder, place, make_display(), command, resume, retrain, paper)
    except KeyboardInterrupt:
        again = shlex.join(["roadmap", *_without_retrain(words), "--resume"])
        click.echo(f"\nstopped; finished runs are kept. To go on: {again}", err=True)
        sys.exit(130)
    click.echo(f"results: {folder}/trajectory.csv, trajectory.png, trajectory.svg; runs: {place.folder}")
    _print_times(results.runs)
    failed = results.runs[results.runs["status"] != "done"]
    if len(failed):
        click.echo(f"{len(failed)} of {len(prepared.runs)} runs failed:", err=True)
        for row in failed.itertuples():
            click.echo(f"  {row.step} seed {row.seed} ({row.signature}): {row.reason}", err=True)
        sys.exit(1)


def _prepare(study: Path | None, out: Path | None, store: Path | None, settings: dict[str, Any]) -> Any:
    """(prepared study, its folder, its store) from the options of a command."""
    from roadmap.study.runner import default_folder, prepare
    from roadmap.study.spec import load_spec
    from roadmap.study.store import DEFAULT_STORE, Store

    given = {name: value for name, value in settings.items() if value is not None and value != ()}
    if "only" in given:
        given["only"] = ",".join(given["only"])
    spec = load_spec(study, **given)
    return prepare(spec), out or default_folder(spec), Store(store or DEFAULT_STORE)


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
        click.echo(f"time of {len(known)} runs: {real:.0f} s, estimated {estimated:.0f} s ({real / estimated:.2f} of it)")


def _print_plan(prepared: Any, folder: Path) -> None:
    from roadmap.cost.counting import CONVENTION
    from roadmap.study.spec import steps_of

    data = prepared.data
    click.echo(
        f"data: {data.name}, {len(data.train)} training and {len(data.test)} test images of {data.image_size} px, "
        f"{len(data.class_names)} classes; device: {prepared.device}; results would go to {folder}"
    )
    rows = []
    for step in steps_of(prepared.runs):
        runs = [run for run in prepared.runs if run.step == step]
        cost, recipe = prepared.cost(runs[0]), runs[0].recipe
        rows.append(
            {
                "step": step,
                "GMACs": f"{cost.gmacs:.4f}",
                "params M": f"{cost.params / 1e6:.3f}",
                "recipe": recipe.name,
                "optimizer": recipe.optimizer,
                "lr": f"{recipe.peak_lr:.3g}",
                "batch": recipe.batch_size,
                "epochs": recipe.epochs,
                "steps": recipe.epochs * (len(data.train) // recipe.batch_size),
                "seeds": ",".join(str(run.seed) for run in runs),
                "PFLOPs": f"{sum(prepared.petaflops(run) for run in runs):.3g}",
            }
        )
    _print_table(rows)
    total = sum(prepared.petaflops(run) for run in prepared.runs)
    click.echo(f"{len(prepared.runs)} runs, {total:.3g} PFLOPs of training (6 operations a multiply-accumulate)")
    click.echo(CONVENTION)


@cli.command()
@ladder_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with reasons, changes and MACs by operator.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@click.option("--why", is_flag=True, help="Print the reason for each step, and count nothing.")
def steps(rungs: Ladder, image_size: int, as_json: bool, as_csv: bool, why: bool) -> None:
    """The ladder: what each step changes and costs.

    Beside the counted figures stand those that the paper printed, for 224 px, width 64, depth 1 and ImageNet-1K,
    whatever is counted here. In the two cells marked * the printed GFLOPs contradict the network.
    """
    if as_json + as_csv + why > 1:
        raise RoadmapError("--json, --csv and --why exclude each other")
    if why:
        for rung in rungs:
            click.secho(f"{rung.name} ({rung.section}): {rung.change}", bold=True)
            click.echo(click.wrap_text(rung.why, width=100, initial_indent="    ", subsequent_indent="    "))
        return
    from roadmap.cost.counting import CONVENTION, count

    full = [(rung, count(rung.design, image_size)) for rung in rungs]
    if not as_json and not as_csv:
        _print_table([_step_row(rungs, rung, cost) for rung, cost in full])
        click.echo(f"{CONVENTION}. Counted at {image_size} x {image_size} px. (-): road not taken.")
        click.echo("paper: top-1 % on ImageNet-1K and GFLOPs as printed; * contradicts the network.")
        return
    records = [
        {
            "regime": rungs.regime, "step": rung.name, "adopted": rung.adopted, "section": rung.section,
            "changes": dict(rung.changes), "classic_recipe": rung.classic_recipe, "why": rung.why,
            "image_size": image_size, "gmacs": cost.gmacs, "params": cost.params, "activations": cost.activations,
            "macs_by_operator": cost.macs_by_operator, "printed_gflops": rung.printed.gflops,
            "network_gmacs": rung.printed.gmacs, "printed_top1": rung.printed.top1,
            "printed_top1_std": rung.printed.top1_std,
        }
        for rung, cost in full
    ]  # fmt: skip
    if as_json:
        click.echo(json.dumps(records, indent=1))
        return
    import csv

    writer = csv.DictWriter(sys.stdout, [name for name in records[0] if not isinstance(records[0][name], dict)],
                            extrasaction="ignore", lineterminator="\n")  # fmt: skip
    writer.writeheader()
    writer.writerows(records)


def _step_row(rungs: Ladder, rung: Any, cost: Any) -> dict[str, Any]:
    printed = rung.printed
    return {
        "step": rung.name if rung.adopted else f"({rung.name})",
        "changes": rung.change,
        "GMACs": f"{cost.gmacs:.2f}" if cost.gmacs >= 0.1 else f"{cost.gmacs:.4f}",
        "params M": f"{cost.params / 1e6:.2f}",
        "activations M": f"{cost.activations / 1e6:.2f}",
        "paper GFLOPs": f"{printed.gflops:.2f}" + ("*" if printed.gflops != printed.gmacs else ""),
        "paper top-1": f"{printed.top1:.2f}" + (f" ±{printed.top1_std:.2f}" if printed.top1_std else ""),
    }


@cli.command()
@ladder_options
@click.option("--from", "first", metavar="STEP", help="First rung [default: the start].")
@click.option("--upto", metavar="STEP", help="Last rung [default: the end].")
@click.option("--roads", is_flag=True, help="The roads not taken, too.")
@click.option("--batch-size", type=int, default=8, show_default=True, help="Images a step.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--threads", type=int, help="CPU threads [default: torch's choice].")
@click.option("--seconds", type=float, default=2.0, show_default=True, help="How long each measurement lasts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(
    rungs: Ladder, image_size: int, first: str | None, upto: str | None, roads: bool, batch_size: int, device: str,
    threads: int | None, seconds: float, as_json: bool,
) -> None:  # fmt: skip
    """Measure the speed and memory of each step here.

    Images per second and peak memory in MiB, of inference and of training steps on random images. The figure after the
    x is the ratio to the ladder's start, which is always measured too.
    """
    check_int("batch size", batch_size, 2, 100_000)
    check_number("seconds", seconds, 0.01, 3600)
    chosen = rungs.between(first, upto, roads)
    for rung in chosen:
        rung.design.feature_sizes(image_size)
    from roadmap.cost.measuring import measure
    from roadmap.training.device import device_name, resolve_device
    from roadmap.training.spec import Execution

    where = resolve_device(Execution(device=device, threads=threads))
    records: list[dict[str, Any]] = []
    for rung in [rungs.start, *(rung for rung in chosen if rung is not rungs.start)]:
        speed = dataclasses.asdict(measure(rung.design, image_size, batch_size, str(where), seconds, threads))
        ratios = {f"{name}_ratio": value / (records[0] if records else speed)[name] for name, value in speed.items()}
        records.append({"step": rung.name, **speed, **ratios})
        if not as_json and sys.stderr.isatty():
            click.echo(f"measured {rung.name}", err=True)
    if as_json:
        click.echo(json.dumps({"device": device_name(where), "image_size": image_size, "batch_size": batch_size,
                               "measurements": records}, indent=1))  # fmt: skip
        return
    words = {
        "inference_images_per_second": "inference img/s", "inference_memory_mib": "inference MiB",
        "training_images_per_second": "training img/s", "training_memory_mib": "training MiB",
    }  # fmt: skip
    _print_table(
        [
            {"step": r["step"], **{word: f"{r[key]:.1f} x{r[f'{key}_ratio']:.2f}" for key, word in words.items()}}
            for r in records
        ]
    )
    click.echo(f"{device_name(where)}; {image_size} px, batches of {batch_size}; xN: ratio to {rungs.start.name}")


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--paper", is_flag=True, help="Draw the paper's own points into the figure.")
def plot(folder: Path, paper: bool) -> None:
    """Draw the trajectory of a study again, from the results in FOLDER."""
    from roadmap.analysis.figure import save_trajectory
    from roadmap.analysis.study import load_study

    for path in save_trajectory(load_study(folder).runs, folder, paper=paper):
        click.echo(path)


@cli.command()
def recipes() -> None:
    """The training recipes that come with roadmap."""
    from roadmap.recipes.recipe import load_recipe, recipe_names

    _print_table(
        [
            {
                "recipe": recipe.name, "optimizer": recipe.optimizer, "lr": f"{recipe.peak_lr:g}",
                "batch": recipe.batch_size, "epochs": recipe.epochs, "start trains with": recipe.classic or "",
                "why": " ".join(recipe.why.split())[:70],
            }
            for recipe in map(load_recipe, recipe_names())
        ]
    )  # fmt: skip


def _print_table(rows: list[dict[str, Any]]) -> None:
    """Columns aligned with spaces: words to the left, numbers to the right."""
    names = list(rows[0])
    widths = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in names}
    words = {name for name in names if not all(str(row[name])[:1].isdigit() or not str(row[name]) for row in rows)}
    for row in ({name: name for name in names}, *rows):
        cells = [
            str(row[name]).ljust(widths[name]) if name in words else str(row[name]).rjust(widths[name])
            for name in names
        ]
        click.echo("  ".join(cells).rstrip())


def main() -> None:
    """Entry point: whatever a user can get wrong ends in one sentence on stderr and exit code 2."""
    # timm's own use of a function that torch has deprecated
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit")
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    try:
        cli.main(prog_name="roadmap", standalone_mode=False)
    except RoadmapError as error:
        _fail(str(error))
    except click.ClickException as error:
        _fail(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        _fail(f"{error.filename or 'the system'}: {error.strerror}")


def _fail(message: str) -> None:
    click.echo(f"roadmap: {message[0].lower()}{message[1:].rstrip('.')}", err=True)
    sys.exit(2)
