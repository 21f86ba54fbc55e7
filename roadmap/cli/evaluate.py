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
@click.argument("run_or_path", metavar="RUN_OR_CHECKPOINT")
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
def eval_command(run_or_path: str, stem_stride: str | None, table: Path | None, as_json: bool, **options: Any) -> None:
    """Test trained weights on a data set, at any resolution.

    Prints accuracy, loss, accuracy per class and the confusion matrix. RUN_OR_CHECKPOINT is a run of the store, given
    by its signature or the beginning of it, or a weights file in our layout, timm's or the official one. A file that
    does not say which network it is for needs --step. Images are normalised as in the network's training.

    \b
    roadmap eval 3f2a                                  a run, on its own test images
    roadmap eval 3f2a --data folder --data-dir PATH --image-size 64
    roadmap eval convnext_tiny.pth --step separate_downsample --data imagenet --data-dir PATH
    """
    if table is not None and not table.parent.is_dir():
        raise RoadmapError(f"{table} cannot be written: there is no folder {table.parent}")
    with phase("testing the weights"):
        from roadmap.running.trained import evaluate

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
