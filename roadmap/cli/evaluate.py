"""The command on trained weights: eval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from roadmap.checks import RoadmapError, cause
from roadmap.cli.group import cli, print_table
from roadmap.cli.study import PLUGIN_OPTION, STORE_OPTION
from roadmap.data import LOADINGS
from roadmap.files import write_text
from roadmap.ladders.ladder import REGIMES
from roadmap.markup import printable
from roadmap.network.design import STEM_STRIDES
from roadmap.phases import phase
from roadmap.tasks import task_named
from roadmap.training.spec import PRECISIONS

#: The confusion matrix is printed for up to this many classes; for more, this many of the most frequent confusions.
SHOWN = 20


@cli.command("eval")
@click.argument("run_or_path", metavar="RUN | CHECKPOINT | STUDY")
@click.option("--on", type=click.Choice(["corrupted"]), help="Corrupt the test images, as ImageNet-C does.")
@click.option("--kinds", metavar="KIND,...", help="With --on: kinds of corruption [default: all 15].")
@click.option("--strengths", metavar="N,...", help="With --on: strengths [default: 1,2,3,4,5].")
@click.option("--images", type=int, metavar="N", help="With --on: test on N images, evenly spread [default: all].")
@click.option("--data", metavar="NAME", help="Data set to test on, named as for roadmap run [default: the run's own].")
@click.option("--data-dir", metavar="PATH", help="Folder of the data set.")
@click.option("--loading", type=click.Choice(LOADINGS), help="Keep decoded images in memory, or stream them from disk.")
@click.option("--skip-corrupt", is_flag=True, default=None, help="Leave out unreadable images.")
@click.option("--image-size", type=int, metavar="N", help="Side of the images in pixels [default: as in training].")
@STORE_OPTION
@click.option("--step", metavar="STEP", help="Network of a file that does not name it.")
@click.option("--regime", type=click.Choice(list(REGIMES)), help="Ladder of that network [default: resnet50].")
@click.option("--width", type=int, metavar="N", help="Base width of that ladder in channels [default: 64].")
@click.option("--depth", type=float, metavar="X", help="Factor on the number of blocks in every stage [default: 1].")
@click.option(
    "--stem-stride",
    type=click.Choice([str(stride) for stride in STEM_STRIDES]),
    help="Stride of its stem [default: 4].",
)
@click.option("--batch-size", type=int, metavar="N", help="Images in a batch [default: as in training, at least 256].")
@click.option("--device", metavar="NAME", help="Device: auto, cpu, cuda, cuda:N or mps [default: auto].")
@click.option(
    "--threads",
    type=int,
    metavar="N",
    help="CPU threads [default: the run's own on its own data, else torch's choice].",
)
@click.option("--workers", type=int, metavar="N", help="Processes that load streamed images [default: up to 4].")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Numerical precision [default: as in training].")
@PLUGIN_OPTION
@click.option(
    "--out",
    "table",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.csv",
    help="Write the confusion matrix to this file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def eval_command(
    run_or_path: str,
    on: str | None,
    kinds: str | None,
    strengths: str | None,
    images: int | None,
    stem_stride: str | None,
    table: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Test trained weights on a data set, at any resolution, or on corrupted images.

    Prints accuracy, loss, accuracy per class and the confusion matrix. RUN is a run of the store, given by its
    signature or the beginning of it, CHECKPOINT a weights file in our layout, timm's or the official one. A file that
    does not say which network it is for needs --step. Images are normalised as in the network's training.

    --on corrupted tests on the 15 kinds of corruption of ImageNet-C at five strengths, made from the test images on the
    fly. imagenet-a, imagenet-r, imagenet-sketch and imagenet-v2 are test sets for networks trained on ImageNet, of the
    classes that both know. Of a STUDY's folder every run is tested, and the scores become metrics of the study:
    `roadmap effects STUDY --metric mce`.

    \b
    roadmap eval 3f2a                                  a run, on its own test images
    roadmap eval 3f2a --data folder --data-dir PATH --image-size 64
    roadmap eval convnext_tiny.pth --step separate_downsample --data imagenet --data-dir PATH
    """
    only_corrupted = {"kinds": kinds, "strengths": strengths, "images": images}
    if on is None and (wrong := [name for name, value in only_corrupted.items() if value is not None]):
        raise RoadmapError(f"--{wrong[0]} is for --on corrupted")
    chosen = {
        "kinds": kinds and [kind.strip() for kind in kinds.split(",")],
        "strengths": strengths and numbers_in("strengths", strengths),
        "images": images,
    }
    if Path(run_or_path).is_dir():
        _eval_study(Path(run_or_path), on, chosen, table, as_json, options | {"stem_stride": stem_stride})
        return
    if on is not None:
        stride = {"stem_stride": int(stem_stride) if stem_stride else None}
        _eval_corrupted(run_or_path, chosen, table, as_json, options | stride)
        return
    if table is not None and not table.parent.is_dir():
        raise RoadmapError(f"{table} cannot be written: there is no folder {table.parent}")
    with phase("testing the weights"):
        from roadmap.running.testing import evaluate

        result = evaluate(run_or_path, stem_stride=int(stem_stride) if stem_stride else None, **options)
    if table is not None:
        try:
            write_text(table, result.confusion_csv())
        except OSError as error:
            raise RoadmapError(f"{table} cannot be written: {cause(error)}") from None
        except UnicodeError:
            raise RoadmapError(f"{table} cannot be written: the name of a class is not valid Unicode") from None
    for remark in result.remarks:
        click.echo(remark, err=True)
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=1))
    else:
        _print(result)


#: What a test on corrupted images, or of a whole study, can be told; the rest is as in each network's training.
TESTED = ("data", "data_dir", "batch_size", "device", "threads", "workers")
#: What names the network of a file.
NAMING = ("step", "regime", "width", "depth", "stem_stride")


def _how(options: dict[str, Any], table: Path | None) -> dict[str, Any]:
    """The options of a test on corrupted images, or of a whole study. Raises `RoadmapError` for others."""
    other = [name for name, value in options.items() if value and name not in (*TESTED, "store", "plugin")]
    if other or table is not None:
        name = other[0].replace("_", "-") if other else "out"
        raise RoadmapError(f"--{name} is for one network on one data set: leave it out")
    return {name: options[name] for name in TESTED}


def numbers_in(option: str, text: str) -> list[int]:
    """``1,3,5`` as whole numbers. Raises `RoadmapError` for anything else."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise RoadmapError(f"--{option} is {text!r}, but must be whole numbers, joined by commas") from None


def _eval_corrupted(
    run: str, chosen: dict[str, Any], table: Path | None, as_json: bool, options: dict[str, Any]
) -> None:
    """Test one network on corrupted images, and print its score by kind and strength."""
    how = _how({name: value for name, value in options.items() if name not in NAMING}, table)
    scale = {name: options[name] for name in NAMING[1:] if options[name] is not None}
    with phase("reading the weights"):
        from roadmap.data.corrupted import FAMILIES, KINDS, STRENGTHS
        from roadmap.network.layers import load_plugins
        from roadmap.running.testing import evaluate_corrupted
        from roadmap.running.trained import find_trained

        load_plugins(options["plugin"])
        trained = find_trained(run, options["store"], options["step"], scale)
    kinds, strengths = chosen["kinds"] or KINDS, chosen["strengths"] or STRENGTHS
    with phase("testing on corrupted images"):
        found = evaluate_corrupted([trained], kinds, strengths, chosen["images"], **how)
    (scores,) = found.scores.values()
    short = trained.task.metric.short
    rows = [
        {
            "family": next(name for name, members in FAMILIES.items() if kind in members),
            "kind": kind,
            **{f"strength {strength}": scores[kind, strength] for strength in strengths},
            "mean": sum(scores[kind, strength] for strength in strengths) / len(strengths),
        }
        for kind in kinds
    ]
    mean = sum(scores.values()) / len(scores)
    if as_json:
        facts = {"weights": trained.name, "images": found.images, "image_size": found.image_size, "mean": mean}
        click.echo(json.dumps(facts | {"corruptions": rows}, indent=1))
        return
    click.echo(f"{printable(trained.name)} on {found.images} corrupted images of {found.image_size} px: {short} in %")
    print_table([{name: _cell(value) for name, value in row.items()} for row in rows])
    click.secho(f"mean {mean:.2f} %", bold=True)


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _eval_study(
    folder: Path, on: str | None, chosen: dict[str, Any], table: Path | None, as_json: bool, options: dict[str, Any]
) -> None:
    """Test every run of a study, and keep the scores as metrics of it."""
    how = _how(options, table)
    if options["store"]:
        raise RoadmapError("a study's folder says where its runs are: leave out --store")
    if on is None and not options["data"]:
        raise RoadmapError("a study's runs were tested on their own images: say --on corrupted, or --data another set")
    with phase("reading the study"):
        from roadmap.results.robustness import CORRUPTED, MCE, run_tests
        from roadmap.results.study import load_study

        study = load_study(folder)
    with phase("testing every run"):
        found = run_tests(study, on, **chosen, plugin=options["plugin"], **how)
    means = found.groupby(["step", "signature"], sort=False)["score"].mean().groupby("step", sort=False)
    if as_json:
        click.echo(found.to_json(orient="records", indent=1))
        return
    column = f"mean {study.metric_short} %"
    print_table([{"network": step, "runs": f"{len(group)}", column: f"{group.mean():.2f}"} for step, group in means])
    metric = MCE if on == CORRUPTED else options["data"]
    click.echo(f"next: roadmap effects {folder} --metric {metric}")


def _print(result: Any) -> None:
    click.echo(
        f"{printable(result.weights)} on {result.data}: {result.images} images of {result.image_size} px, "
        f"{len(result.class_names)} classes"
    )
    task = task_named(result.task)
    figures = [f"{one.short} {result.metrics[one.key]:.2f} %" for one in task.metrics]
    figures += [] if result.loss is None else [f"loss {result.loss:.4f}"]
    click.secho(", ".join(figures), bold=True)
    click.echo()
    names = result.class_names
    print_table(
        [
            {
                "class": facts["class"],
                "images": facts["images"],
                f"{task.metric.short} %": _per_cent(facts[task.metric.key]),
            }
            for facts in result.classes
        ]
    )
    if result.confusion is None:
        return
    if len(names) <= SHOWN:
        click.secho("\nconfusion matrix: rows are true classes, columns predicted ones", bold=True)
        print_table(
            [
                {"": name, **dict(zip(names, row, strict=True))}
                for name, row in zip(names, result.confusion, strict=True)
            ]
        )
    elif mistakes := result.mistakes(SHOWN):
        click.secho("\nmost frequent confusions", bold=True)
        print_table(mistakes)


def _per_cent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
