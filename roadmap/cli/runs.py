"""Commands on the runs of a store: list, show and reproduce."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import click

from roadmap.checks import RoadmapError
from roadmap.cli.entries import (
    clock_text,
    facts_of,
    find_entry,
    number_text,
    open_store,
    removed_meanwhile,
    size_text,
    value_text,
)
from roadmap.cli.group import cli, print_table
from roadmap.cli.study import PLUGIN_OPTION, STORE_OPTION
from roadmap.markup import printable
from roadmap.phases import phase
from roadmap.store.records import COLUMNS, STATUSES, Entry, csv_text, files_of
from roadmap.store.store import Store
from roadmap.tasks import default_task, task_named, tasks

#: Columns of `roadmap list`; in the place of the score stands the metric that it is.
LISTED = (
    "signature",
    "status",
    "step",
    "seed",
    "data",
    "recipe",
    "width",
    "depth",
    "epochs",
    "score",
    "seconds",
    "started",
)


@cli.command("list")
@STORE_OPTION
@click.option("--step", help="Only runs of this step.")
@click.option("--status", "wanted", type=click.Choice(STATUSES), help="Only runs in this state.")
@click.option("--data", help="Only runs on this data set.")
@click.option("--seed", type=int, help="Only runs with this seed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
def list_command(
    store: Path | None,
    step: str | None,
    wanted: str | None,
    data: str | None,
    seed: int | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """List all runs of the store, one per line, in the order in which they were started.

    \b
    roadmap list --step gelu --status done
    roadmap list --data cifar10 --csv > runs.csv
    """
    if as_json and as_csv:
        raise RoadmapError("--json and --csv exclude each other")
    filters = {"step": step, "status": wanted, "data": data, "seed": seed}
    filters = {name: value for name, value in filters.items() if value is not None}
    with phase("reading the store"):
        every = (_listed(facts) for facts in map(facts_of, open_store(store).entries()))
        rows = [row for row in every if all(row[name] == value for name, value in filters.items())]
    rows.sort(key=lambda row: (str(row["started"] or ""), row["signature"]))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif as_csv:
        click.echo(csv_text(rows) or ",".join(_listed(dict.fromkeys(COLUMNS))) + "\n", nl=False)
    elif rows:
        print_table([_listed_cells(row, len({*map(_metric_in, rows)}) > 1) for row in rows])
    else:
        click.echo("no run matches" if filters else "no runs yet")


def _listed(facts: dict[str, Any]) -> dict[str, Any]:
    metric = task_named(facts["task"] or default_task().name).metric
    return {metric.key if name == "score" else name: facts[name] for name in LISTED}


def _metric_in(row: dict[str, Any]) -> str:
    """The metric of a row of `_listed`."""
    return next(name for name in row if name not in LISTED)


def _listed_cells(row: dict[str, Any], several: bool) -> dict[str, str]:
    """``several``: whether runs of several tasks are listed."""
    key = _metric_in(row)
    short = next(task.metric.short for task in tasks().values() if task.metric.key == key)
    score = {"metric": short} if several else {}
    score |= {"score %" if several else f"{short} %": number_text(row[key], ".2f")}
    return {
        "run": row["signature"],
        "status": row["status"],
        "step": printable(row["step"]),
        "seed": printable(row["seed"]),
        "data": printable(row["data"]),
        "recipe": printable(row["recipe"]),
        "width/depth": "" if row["width"] is None else f"{printable(row['width'])}/{number_text(row['depth'], '.3g')}",
        "epochs": printable(row["epochs"]),
        **score,
        "time": clock_text(row["seconds"]),
        "started (UTC)": printable(row["started"])[:16].replace("T", " "),
    }


@cli.command()
@click.argument("run")
@STORE_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print the record, as in run.json.")
def show(run: str, store: Path | None, as_json: bool) -> None:
    """Show everything about one run.

    Settings, cost, result, environment, origin, the last epochs and the files, every byte of which is checked; for a
    running one its progress. RUN is a signature, as `roadmap list` shows it, or its beginning.

    \b
    roadmap show 08c8
    """
    place = open_store(store)
    entry = find_entry(place, run)
    if as_json:
        known = {name: getattr(entry, name) for name in ("signature", "status", "reason", "progress")}
        click.echo(json.dumps(entry.record if entry.status in ("done", "failed") else known, indent=1))
        return
    with phase("checking the files"):
        checked = _check(place, entry.signature) if entry.record else None
    _print_entry(entry)
    if entry.record and checked:
        _print_files(entry.record, place.path(entry.signature), *checked)


def _check(store: Store, signature: str) -> tuple[str | None, list[dict[str, float]]]:
    """What is wrong with a finished run's files, and its history where nothing is."""
    try:
        problem = store.verify(signature)
        if problem is None:
            return None, store.history(signature)
    except FileNotFoundError:
        raise removed_meanwhile(store, signature) from None
    if store.entry(signature) is None:
        raise removed_meanwhile(store, signature)
    return problem, []


def _print_entry(entry: Entry) -> None:
    facts = facts_of(entry)
    label = f": {printable(facts['step'])}, seed {printable(facts['seed'])}" if facts["step"] else ""
    click.secho(f"run {entry.signature}{label}: {entry.status}", bold=True)
    if entry.reason:
        click.echo(printable(entry.reason))
    progress = dict(entry.progress or {})
    record = entry.record or {"run": progress.get("run", {})}
    _print_section("progress", {name: value for name, value in progress.items() if name != "run"})
    settings = record["run"]
    _print_section("run", {name: value for name, value in settings.items() if not isinstance(value, dict)})
    for name in ("design", "head", "recipe"):
        _print_section(name, settings.get(name) or {})
    for name in ("cost", "result", "labels", "data", "environment", "origin"):
        _print_section(name, record.get(name, {}))


def _print_section(title: str, facts: dict[str, Any]) -> None:
    if facts:
        click.secho(f"\n{title}", bold=True)
        width = max(map(len, facts))
        for name, value in facts.items():
            click.echo(f"  {printable(name):<{width}}  {value_text(value)}".rstrip())


def _print_files(record: dict[str, Any], folder: Path, problem: str | None, history: list[dict[str, float]]) -> None:
    if history:
        click.secho("\nlast epochs", bold=True)
        print_table([{name: f"{value:.4g}" for name, value in epoch.items()} for epoch in history[-5:]])
    click.secho(f"\nfiles in {folder}", bold=True)
    for name, facts in files_of(record).items():
        click.echo(f"  {name}  {size_text(facts['bytes'])}  sha256 {printable(facts.get('sha256'))}")
    click.echo(f"  {printable(problem)}" if problem else "  all files are as they were written")


@cli.command()
@click.argument("run")
@STORE_OPTION
@click.option("--data-dir", metavar="PATH", help="Folder of the data set now [default: where it was].")
@click.option("--device", metavar="DEVICE", help="Device: auto, cpu, cuda, cuda:N or mps [default: as before].")
@PLUGIN_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reproduce(
    run: str, store: Path | None, data_dir: str | None, device: str | None, plugin: tuple[str, ...], as_json: bool
) -> None:
    """Train a finished run again, and compare.

    It is trained from its record, in a temporary folder, with the same settings, seed, threads and kind of device. On
    the CPU of the same type of machine, with the same versions, all weights are equal bit for bit; on a GPU if both
    runs used --deterministic. RUN is a signature, as `roadmap list` shows it, or its beginning. The exit code is 1 if
    the two runs do not match.
    """
    with phase("reading the run"):
        from roadmap.running.display import PlainDisplay, make_display
        from roadmap.running.reproduction import reproduce as make_again

    place = open_store(store)
    signature = place.find(run)
    display = PlainDisplay(sys.stderr) if as_json else make_display()
    made = make_again(signature, place, display, data_dir, device, plugin)
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(made), "matches": made.matches}, indent=1))
    else:
        print_table(
            [
                {"": name, "recorded": printable(old), "again": printable(new), "equal": "yes" if old == new else "no"}
                for name, (old, new) in made.metrics.items()
            ]
        )
        weights = (
            "not compared, as the run's were not kept"
            if made.weights is None
            else ("equal bit for bit" if not made.weights else f"differ by up to {made.weights:.3g}")
        )
        click.echo(f"weights: {weights}")
        if made.flipped is None:
            click.echo("test images: not compared, as the run kept no record of which it got right")
        else:
            click.echo(f"test images: {made.flipped or 'none'} that only one of the two runs got right")
        for name, (old, new) in made.circumstances.items():
            click.echo(f"changed: {name} is {printable(new)}, was {printable(old)}")
        click.echo(f"run {signature} {'matches' if made.matches else 'does not match'}")
    if not made.matches:
        sys.exit(1)
