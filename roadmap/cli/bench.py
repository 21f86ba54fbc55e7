"""The command that measures networks on this machine: bench."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from roadmap.checks import RoadmapError
from roadmap.cli.group import cli, print_table
from roadmap.cli.ladder import ladder_options, measuring_options
from roadmap.cli.study import PLUGIN_OPTION
from roadmap.formatting import plural
from roadmap.ladders.ladder import Ladder, Rung
from roadmap.phases import phase

#: Options that choose networks of a ladder, which a study's are not.
LADDERS = ("regime", "width", "depth", "stem_stride", "first", "upto", "roads")
#: What is measured of speed, and what it is called in a table.
SPEEDS = {
    "inference_images_per_second": "inference img/s",
    "inference_memory_mib": "inference MiB",
    "training_images_per_second": "training img/s",
    "training_memory_mib": "training MiB",
}


@cli.command()
@ladder_options
@click.option("--from", "first", metavar="STEP", help="First rung [default: the start].")
@click.option("--upto", metavar="STEP", help="Last rung [default: the end].")
@click.option("--roads", is_flag=True, help="Also measure the roads not taken.")
@click.option("--inference", is_flag=True, help="Measure latency: the time that a batch takes, even of one image.")
@click.option(
    "--study",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Measure the latency of a study's networks, and keep it there for its tables and figures.",
)
@PLUGIN_OPTION
@partial(measuring_options, least=1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def bench(
    context: click.Context,
    rungs: Ladder,
    image_size: int,
    first: str | None,
    upto: str | None,
    roads: bool,
    inference: bool,
    study: Path | None,
    plugin: tuple[str, ...],
    batch_size: int,
    device: str,
    threads: int | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure the speed and memory of each step on this machine.

    Prints images per second and peak memory in MiB, for inference and for training steps on random images. The figure
    after the x is the ratio to the ladder's start, which is always measured too.

    --inference measures latency instead: the milliseconds that a batch takes, median and 95th percentile, of all
    networks in turn. With --study these are a study's networks, and its effects and figures then know of it.

    \b
    roadmap bench --upto patchify_stem
    roadmap bench --study results/mine --inference --batch-size 1
    roadmap plot results/mine --figure pareto --x latency --budget 20ms
    """
    given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    chosen = rungs.between(first, upto, roads)
    if study is not None:
        if wrong := [name for name in LADDERS if name in given]:
            option = {"first": "from"}.get(wrong[0], wrong[0]).replace("_", "-")
            raise RoadmapError(f"--{option} is for a ladder: the networks of a study are what they are")
        if not inference:
            raise RoadmapError("of a study's networks the latency is measured: add --inference")
    else:
        for rung in chosen:
            rung.design.feature_sizes(image_size)
    with phase("preparing to measure"):
        from roadmap.network.layers import load_plugins
        from roadmap.training.device import device_name, resolve_device
        from roadmap.training.spec import Execution

        load_plugins(plugin)
        where = resolve_device(Execution(device=device, threads=threads))
    how = (str(where), seconds, threads)
    every = [rungs.start, *(rung for rung in chosen if rung is not rungs.start)]
    if study is not None:
        size = image_size if "image_size" in given else None
        records = _of_study(study, batch_size, size, str(where), device_name(where), seconds, threads)
        image_size = records[0].pop("image_size")
    elif inference:
        records = _latencies({rung.name: rung.design for rung in every}, image_size, batch_size, *how)
    else:
        records = _speeds(every, image_size, batch_size, *how)
    if as_json:
        facts = {"device": device_name(where), "image_size": image_size, "batch_size": batch_size}
        click.echo(json.dumps(facts | {"measurements": records}, indent=1))
        return
    print_table([_latency_row(record) if inference else _speed_row(record) for record in records])
    images = "one image at a time" if batch_size == 1 else f"batches of {batch_size}"
    click.echo(f"{device_name(where)}; {image_size} px, {images}; xN: ratio to {records[0]['step']}")


def _speeds(
    rungs: Sequence[Rung], image_size: int, batch_size: int, device: str, seconds: float, threads: int | None
) -> list[dict[str, Any]]:
    from roadmap.cost.measuring import measure

    records: list[dict[str, Any]] = []
    for rung in rungs:
        with phase(f"measuring {rung.name}"):
            speed = dataclasses.asdict(measure(rung.design, image_size, batch_size, device, seconds, threads))
        ratios = {f"{name}_ratio": value / (records[0] if records else speed)[name] for name, value in speed.items()}
        records.append({"step": rung.name, **speed, **ratios})
    return records


def _speed_row(record: dict[str, Any]) -> dict[str, str]:
    speeds = {word: f"{record[key]:.1f} x{record[f'{key}_ratio']:.2f}" for key, word in SPEEDS.items()}
    return {"step": record["step"], **speeds}


def _latencies(designs: dict[str, Any], image_size: int, batch_size: int, *how: Any) -> list[dict[str, Any]]:
    from roadmap.cost.measuring import latencies

    with phase(f"measuring the latency of {plural(len(designs), 'network')} in turn"):
        found = latencies(designs, image_size, batch_size, *how)
    return _with_ratios(
        {"step": name, "latency": one.median, "latency_p95": one.percentile_95, "latency_error": one.std_error}
        for name, one in found.items()
    )


def _of_study(
    folder: Path,
    batch_size: int,
    image_size: int | None,
    device: str,
    device_name: str,
    seconds: float,
    threads: int | None,
) -> list[dict[str, Any]]:
    from roadmap.results.latency import measure_latency
    from roadmap.results.study import load_study

    with phase("reading the study"):
        study = load_study(folder)
    with phase(f"measuring the latency of {plural(len(study.steps), 'network')} in turn"):
        table = measure_latency(study, batch_size, device, device_name, seconds, threads, image_size)
    wanted = ["step", "latency", "latency_p95", "latency_error"]
    records = _with_ratios(table[wanted].to_dict("records"))
    records[0]["image_size"] = int(table["image_size"].iloc[0])
    return records


def _with_ratios(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    records = [*rows]
    return [record | {"latency_ratio": record["latency"] / records[0]["latency"]} for record in records]


def _latency_row(record: dict[str, Any]) -> dict[str, str]:
    return {
        "step": record["step"],
        "median ms": f"{record['latency']:.3g} ±{record['latency_error']:.1g} x{record['latency_ratio']:.2f}",
        "95th percentile ms": f"{record['latency_p95']:.3g}",
    }
