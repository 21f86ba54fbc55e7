"""The command on the progress of a store or study: status."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from roadmap.cli.entries import (
    JSON_OPTION,
    STUDY_FOLDER,
    clock_text,
    facts_of,
    number_text,
    open_store,
    open_study,
    size_text,
)
from roadmap.cli.group import cli, print_table
from roadmap.cli.study import STORE_OPTION
from roadmap.formatting import plural
from roadmap.markup import printable
from roadmap.phases import phase
from roadmap.store.housekeeping import disk_bytes
from roadmap.store.records import COLUMNS, STATUSES, Entry
from roadmap.store.store import Store
from roadmap.tasks import default_task, task_named
from roadmap.tasks.task import Task

#: A status shows this many runs of a kind, and says how many more there are.
SHOWN = 20


@cli.command()
@STUDY_FOLDER
@STORE_OPTION
@JSON_OPTION
def status(study: Path | None, store: Path | None, as_json: bool) -> None:
    """Show how many runs of the store, or of one study, are in which state.

    A run is done, running, interrupted (begun, but not being trained now), failed or damaged. Nothing is changed: the
    store may be in use, or belong to another user.

    \b
    roadmap status                             the whole store
    roadmap status results/resnet50-to-gelu    one study, with real times beside the estimated ones
    """
    with phase("reading the store"):
        report = _report(open_store(store)) if study is None else _study_report(study)
    if as_json:
        click.echo(json.dumps(report, indent=1))
    elif study is None:
        _print_report(report)
    else:
        _print_study(report)


def _report(store: Store) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in STATUSES if name != "done"}
    for entry in store.entries():
        counts[entry.status] += 1
        if entry.status != "done":
            runs[entry.status].append(_standing(entry))
    return {
        "store": str(store.folder),
        "bytes": disk_bytes(store.folder),
        "counts": {name: counts[name] for name in STATUSES},
        **runs,
    }


def _standing(entry: Entry) -> dict[str, Any]:
    """How far a run is, or why it stopped."""
    facts, progress = facts_of(entry), entry.progress or {}
    left = progress.get("seconds_left")
    if left is not None:
        left = max(0.0, left - (time.time() - progress["updated"]))
    return {
        **{name: facts[name] for name in ("signature", "status", "step", "seed", "task")},
        "epoch": facts["epochs"],
        "epochs": progress.get("epochs"),
        **{name: progress.get(name) for name in (*_figures(facts).values(), "images_per_second")},
        "seconds_left": left,
        "host": progress.get("host"),
        "reason": entry.reason,
    }


def _task(facts: dict[str, Any]) -> Task:
    return task_named(facts["task"] or default_task().name)


def _figures(facts: dict[str, Any]) -> dict[str, str]:
    """What a run in work tells of itself, by the titles of columns: the names of figures in its progress."""
    task = _task(facts)
    trained = {} if task.trained is None else {f"train {task.trained.short} %": f"train_{task.trained.key}"}
    return trained | {f"test {task.metric.short} %": f"test_{task.metric.key}"}


def _print_report(report: dict[str, Any]) -> None:
    counts = report["counts"]
    click.echo(f"{report['store']}: {plural(sum(counts.values()), 'run')}, {size_text(report['bytes'])}")
    click.echo(_counted(counts))
    for name in STATUSES[1:]:
        if report[name]:
            click.secho(f"\n{name}", bold=True)
            print_table([_standing_cells(run) for run in report[name][:SHOWN]])
            if len(report[name]) > SHOWN:
                click.echo(f"and {len(report[name]) - SHOWN} more: roadmap list --status {name}")


def _standing_cells(run: dict[str, Any]) -> dict[str, str]:
    cells = {"run": run["signature"], "step": printable(run["step"]), "seed": printable(run["seed"])}
    if run["status"] in ("running", "interrupted"):
        cells["epoch"] = f"{run['epoch']}/{run['epochs']}" if run["epochs"] else ""
    if run["status"] == "running":
        cells |= {
            **{title: number_text(run[name], ".1f") for title, name in _figures(run).items()},
            "img/s": number_text(run["images_per_second"], ".0f"),
            "left": clock_text(run["seconds_left"]),
            "host": printable(run["host"]),
        }
    if run["reason"]:
        cells["reason"] = printable(run["reason"])
    return cells


def _study_report(folder: Path) -> dict[str, Any]:
    runs, store = open_study(folder)
    rows, running = [], []
    for run in runs:
        entry = store.entry(run["signature"])
        facts = facts_of(entry) if entry else dict.fromkeys(COLUMNS)
        name = entry.status if entry else "waiting"
        label = {"step": run.get("step"), "seed": run.get("seed"), "signature": run["signature"], "status": name}
        measured = {
            name: facts[name] for name in (_task(facts).metric.key, "wall_seconds", "estimated_seconds", "reason")
        }
        rows.append({**label, "task": facts["task"], **measured})
        if entry and name == "running":
            running.append(_standing(entry) | label)
    counts = Counter(row["status"] for row in rows)
    timed = [row for row in rows if row["status"] == "done" and row["estimated_seconds"] is not None]
    return {
        "study": str(folder),
        "store": str(store.folder),
        "counts": {name: counts[name] for name in (*STATUSES, "waiting")},
        "timed_runs": len(timed),
        **{name: sum(row[name] for row in timed) for name in ("wall_seconds", "estimated_seconds")},
        "running": running,
        "runs": rows,
    }


def _print_study(report: dict[str, Any]) -> None:
    rows = report["runs"]
    click.echo(f"{report['study']}: {plural(len(rows), 'run')}, in {report['store']}")
    click.echo(_counted(report["counts"]))
    if rows:
        click.echo()
        states = [name for name, number in report["counts"].items() if number]
        steps = dict.fromkeys(row["step"] for row in rows)
        print_table([_step_cells(step, [row for row in rows if row["step"] == step], states) for step in steps])
    if report["running"]:
        click.secho("\nrunning", bold=True)
        print_table([_standing_cells(run) for run in report["running"]])
    troubled = [row for row in rows if row["reason"]]
    if troubled:
        click.echo()
        print_table([_standing_cells(row) for row in troubled[:SHOWN]])
    if report["timed_runs"]:
        real, estimated = report["wall_seconds"], report["estimated_seconds"]
        click.echo(
            f"\ntime of {plural(report['timed_runs'], 'run')}: {clock_text(real)}, estimated {clock_text(estimated)} "
            f"(ratio {real / estimated:.2f})"
        )


def _step_cells(step: str, rows: list[dict[str, Any]], states: list[str]) -> dict[str, str]:
    counts = Counter(row["status"] for row in rows)
    done = [row for row in rows if row["status"] == "done"]
    metric = _task(rows[0]).metric
    return {
        "step": printable(step),
        **{name: str(counts[name] or "") for name in states},
        f"{metric.short} %": number_text(_mean(row[metric.key] for row in done), ".1f"),
        "a run": clock_text(_mean(row["wall_seconds"] for row in done)),
        "estimated": clock_text(_mean(row["estimated_seconds"] for row in done)),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _counted(counts: dict[str, int]) -> str:
    always = ("done", "running", "failed")
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number or name in always)
