"""Commands on the store: status, list, show, export, rm and gc."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from roadmap.checks import RoadmapError
from roadmap.cli.group import cli, print_table
from roadmap.cli.study import PLUGIN_OPTION, STORE_OPTION
from roadmap.formatting import plural
from roadmap.markup import printable
from roadmap.phases import phase
from roadmap.study.store import COLUMNS, STATUSES, Entry, Store, csv_text, disk_bytes, files_of, row_of, store_at

#: Columns of `roadmap list`.
LISTED = ("signature", "status", "step", "seed", "data", "recipe", "width", "depth", "epochs", "top1", "seconds",
          "started")  # fmt: skip
#: A status shows this many runs of a kind, and says how many more there are.
SHOWN = 20

STUDY_FOLDER = click.argument(
    "study", required=False, type=click.Path(path_type=Path, file_okay=False), metavar="[STUDY_FOLDER]"
)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _open(folder: Path | None) -> Store:
    store = store_at(folder)
    store.check()
    return store


def _find(store: Store, beginning: str) -> Entry:
    signature = store.find(beginning)
    entry = store.entry(signature)
    if entry is None:
        raise _gone(store, signature)
    return entry


def _gone(store: Store, signature: str) -> RoadmapError:
    return RoadmapError(f"run {signature} has just been removed from {store.folder}")


def _open_study(folder: Path) -> tuple[list[dict[str, Any]], Store]:
    """The runs that a study asked for, and its store."""
    from roadmap.study.folder import StudyFolder

    if click.get_current_context().params["store"]:
        raise RoadmapError(f"{folder} names its own store: leave out --store")
    study = StudyFolder(folder).study()
    return study["runs"], _open((folder / study["store"]).resolve())


# --- status


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
        report = _report(_open(store)) if study is None else _study_report(study)
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
        "store": str(store.folder), "bytes": disk_bytes(store.folder),
        "counts": {name: counts[name] for name in STATUSES}, **runs,
    }  # fmt: skip


def _standing(entry: Entry) -> dict[str, Any]:
    """How far a run is, or why it is no further."""
    facts, progress = _facts(entry), entry.progress or {}
    left = progress.get("seconds_left")
    if left is not None:
        left = max(0.0, left - (time.time() - progress["updated"]))
    return {
        **{name: facts[name] for name in ("signature", "status", "step", "seed")},
        "epoch": facts["epochs"], "epochs": progress.get("epochs"),
        **{name: progress.get(name) for name in ("train_top1", "test_top1", "images_per_second")},
        "seconds_left": left, "host": progress.get("host"), "reason": entry.reason,
    }  # fmt: skip


def _print_report(report: dict[str, Any]) -> None:
    counts = report["counts"]
    click.echo(f"{report['store']}: {plural(sum(counts.values()), 'run')}, {_size(report['bytes'])}")
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
            "train top-1 %": _number(run["train_top1"], ".1f"),
            "test top-1 %": _number(run["test_top1"], ".1f"),
            "img/s": _number(run["images_per_second"], ".0f"),
            "left": _clock(run["seconds_left"]),
            "host": printable(run["host"]),
        }
    if run["reason"]:
        cells["reason"] = printable(run["reason"])
    return cells


def _study_report(folder: Path) -> dict[str, Any]:
    runs, store = _open_study(folder)
    rows, running = [], []
    for run in runs:
        entry = store.entry(run["signature"])
        facts = _facts(entry) if entry else dict.fromkeys(COLUMNS)
        name = entry.status if entry else "waiting"
        label = {"step": run.get("step"), "seed": run.get("seed"), "signature": run["signature"], "status": name}
        measured = {name: facts[name] for name in ("top1", "wall_seconds", "estimated_seconds", "reason")}
        rows.append({**label, **measured})
        if entry and name == "running":
            running.append(_standing(entry) | label)
    counts = Counter(row["status"] for row in rows)
    timed = [row for row in rows if row["status"] == "done" and row["estimated_seconds"] is not None]
    return {
        "study": str(folder), "store": str(store.folder),
        "counts": {name: counts[name] for name in (*STATUSES, "waiting")},
        "timed_runs": len(timed),
        **{name: sum(row[name] for row in timed) for name in ("wall_seconds", "estimated_seconds")},
        "running": running, "runs": rows,
    }  # fmt: skip


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
            f"\ntime of {plural(report['timed_runs'], 'run')}: {_clock(real)}, estimated {_clock(estimated)} "
            f"(ratio {real / estimated:.2f})"
        )


def _step_cells(step: str, rows: list[dict[str, Any]], states: list[str]) -> dict[str, str]:
    counts = Counter(row["status"] for row in rows)
    done = [row for row in rows if row["status"] == "done"]
    return {
        "step": printable(step),
        **{name: str(counts[name] or "") for name in states},
        "top-1 %": _number(_mean(row["top1"] for row in done), ".1f"),
        "a run": _clock(_mean(row["wall_seconds"] for row in done)),
        "estimated": _clock(_mean(row["estimated_seconds"] for row in done)),
    }


# --- list and show


@cli.command("list")
@STORE_OPTION
@click.option("--step", help="Only runs of this step.")
@click.option("--status", "wanted", type=click.Choice(STATUSES), help="Only runs in this state.")
@click.option("--data", help="Only runs on this data set.")
@click.option("--seed", type=int, help="Only runs with this seed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
def list_command(
    store: Path | None, step: str | None, wanted: str | None, data: str | None, seed: int | None, as_json: bool,
    as_csv: bool,
) -> None:  # fmt: skip
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
        every = ({name: facts[name] for name in LISTED} for facts in map(_facts, _open(store).entries()))
        rows = [row for row in every if all(row[name] == value for name, value in filters.items())]
    rows.sort(key=lambda row: (str(row["started"] or ""), row["signature"]))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif as_csv:
        click.echo(csv_text(rows) or ",".join(LISTED) + "\n", nl=False)
    elif rows:
        print_table([_listed_cells(row) for row in rows])
    else:
        click.echo("no run matches" if filters else "no runs yet")


def _listed_cells(row: dict[str, Any]) -> dict[str, str]:
    return {
        "run": row["signature"],
        "status": row["status"],
        "step": printable(row["step"]),
        "seed": printable(row["seed"]),
        "data": printable(row["data"]),
        "recipe": printable(row["recipe"]),
        "width/depth": "" if row["width"] is None else f"{printable(row['width'])}/{_number(row['depth'], '.3g')}",
        "epochs": printable(row["epochs"]),
        "top-1 %": _number(row["top1"], ".2f"),
        "time": _clock(row["seconds"]),
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
    place = _open(store)
    entry = _find(place, run)
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
        raise _gone(store, signature) from None
    if store.entry(signature) is None:
        raise _gone(store, signature)
    return problem, []


def _print_entry(entry: Entry) -> None:
    facts = _facts(entry)
    label = f": {printable(facts['step'])}, seed {printable(facts['seed'])}" if facts["step"] else ""
    click.secho(f"run {entry.signature}{label}: {entry.status}", bold=True)
    if entry.reason:
        click.echo(printable(entry.reason))
    progress = dict(entry.progress or {})
    record = entry.record or {"run": progress.get("run", {})}
    _print_section("progress", {name: value for name, value in progress.items() if name != "run"})
    settings = record["run"]
    _print_section("run", {name: value for name, value in settings.items() if not isinstance(value, dict)})
    for name in ("design", "recipe"):
        _print_section(name, settings.get(name, {}))
    for name in ("cost", "result", "labels", "data", "environment", "origin"):
        _print_section(name, record.get(name, {}))


def _print_section(title: str, facts: dict[str, Any]) -> None:
    if facts:
        click.secho(f"\n{title}", bold=True)
        width = max(map(len, facts))
        for name, value in facts.items():
            click.echo(f"  {printable(name):<{width}}  {_several(value)}".rstrip())


def _print_files(record: dict[str, Any], folder: Path, problem: str | None, history: list[dict[str, float]]) -> None:
    if history:
        click.secho("\nlast epochs", bold=True)
        print_table([{name: f"{value:.4g}" for name, value in epoch.items()} for epoch in history[-5:]])
    click.secho(f"\nfiles in {folder}", bold=True)
    for name, facts in files_of(record).items():
        click.echo(f"  {name}  {_size(facts['bytes'])}  sha256 {printable(facts.get('sha256'))}")
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
        from roadmap.study.display import PlainDisplay, make_display
        from roadmap.study.reproduction import reproduce as make_again

    place = _open(store)
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
        weights = "not compared, as the run's were not kept" if made.weights is None else (
            "equal bit for bit" if not made.weights else f"differ by up to {made.weights:.3g}")  # fmt: skip
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


# --- export


@cli.command()
@STUDY_FOLDER
@STORE_OPTION
@click.option("--to", "kind", type=click.Choice(["csv", "parquet", "md", "latex"]), default="csv", show_default=True,
              help="Format of the table.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="File to write [default: print the table].")  # fmt: skip
@click.option("--all-columns", is_flag=True, help="Write every column in md and latex, too.")
def export(study: Path | None, store: Path | None, kind: str, out: Path | None, all_columns: bool) -> None:
    """Export finished and failed runs, of the store or of one study, as a table.

    csv and parquet have a column for everything that is known of a run, with all digits; md (Markdown) and latex have
    selected columns, rounded, for a page. parquet, md and latex need the packages of `pip install
    'roadmap-ablation[export]'`.

    \b
    roadmap export --to parquet --out runs.parquet
    roadmap export results/resnet50-to-gelu --to latex
    """
    with phase("reading the runs"):
        from roadmap.analysis.export import export as export_table

    entries: Iterable[tuple[Entry | None, dict[str, Any]]]
    if study is None:
        entries = ((entry, {}) for entry in _open(store).entries())
    else:
        runs, place = _open_study(study)
        # The labels are the study's: another one may have asked for the same training by another name.
        entries = ((place.entry(run["signature"]), run) for run in runs)
    rows, left_out = [], 0
    with phase("reading the runs"):
        for entry, labels in entries:
            if entry is None or entry.status in ("running", "interrupted"):
                continue
            if entry.record is None:
                left_out += 1
            else:
                rows.append(row_of(entry.record | {"run": entry.record["run"] | labels}))
        table = export_table(rows, kind, out, all_columns)
    click.echo(table, nl=False)
    if out is not None:
        click.echo(f"{out}: {plural(len(rows), 'run')}")
    if left_out:
        click.echo(f"left out: {plural(left_out, 'run')} that cannot be read; see roadmap status", err=True)


# --- rm and gc


@cli.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@STORE_OPTION
@click.option("--yes", is_flag=True, help="Remove without confirmation.")
def rm(runs: tuple[str, ...], store: Path | None, yes: bool) -> None:
    """Remove runs from the store.

    Removes record, weights and checkpoint; a study that needs such a run trains it again. RUN is a signature or its
    beginning. If one of the runs does not exist or is being trained, none is removed.

    \b
    roadmap rm 08c8 1264
    """
    place = _open(store)
    found = [_find(place, run) for run in dict.fromkeys(map(place.find, runs))]
    for entry in found:
        if entry.status == "running":
            raise RoadmapError(f"run {entry.signature} is being trained: stop that first")
    freed = sum(_run_bytes(place, entry.signature) for entry in found)
    if not yes:
        if not sys.stdin.isatty():
            raise RoadmapError("confirming needs a terminal: add --yes to remove without confirmation")
        for entry in found:
            click.echo(_description(entry))
        if not click.confirm(f"Remove {plural(len(found), 'run')}, {_size(freed)}?"):
            click.echo("nothing was removed")
            return
    place.remove(*(entry.signature for entry in found))
    for entry in found:
        click.echo(f"removed {_description(entry)}")
    click.echo(f"{plural(len(found), 'run')}, {_size(freed)}")


@cli.command()
@STORE_OPTION
@click.option("--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@click.option("--failed", is_flag=True, help="Also remove failed runs.")
@click.option("--interrupted", is_flag=True, help="Also remove runs that were begun and are not being trained now.")
@click.option("--damaged", is_flag=True, help="Also remove damaged runs.")
def gc(store: Path | None, dry_run: bool, failed: bool, interrupted: bool, damaged: bool) -> None:
    """Remove what no run needs.

    Removes the leftovers of processes that have ended and, with the options, unfinished or damaged runs. Whatever a
    running process uses is kept.

    \b
    roadmap gc --dry-run --failed --damaged
    """
    place = _open(store)
    wanted = {"failed": failed, "interrupted": interrupted, "damaged": damaged}
    entries = [entry for entry in place.entries() if wanted.get(entry.status)] if any(wanted.values()) else []
    going = {entry.signature for entry in entries}
    freed = number = 0
    for entry in entries:
        count = _run_bytes(place, entry.signature)
        if dry_run or place.remove_if(entry.signature, entry.status):
            freed, number = freed + count, number + 1
            click.echo(f"{_description(entry)}, {_size(count)}")
    for path in place.garbage():
        if going.isdisjoint(path.parts):
            count = disk_bytes(path)
            if dry_run or place.discard(path):
                freed, number = freed + count, number + 1
                click.echo(f"{path}, {_size(count)}")
    if number:
        click.echo(f"{'would remove' if dry_run else 'removed'} {plural(number, 'item')}, {_size(freed)}")
    else:
        click.echo("nothing to remove")


def _run_bytes(store: Store, signature: str) -> int:
    return sum(map(disk_bytes, store.folders(signature)))


def _description(entry: Entry) -> str:
    facts = _facts(entry)
    label = f" {printable(facts['step'])} seed {printable(facts['seed'])}" if facts["step"] else ""
    return f"{entry.signature}{label} ({entry.status})"


# --- facts and words


def _facts(entry: Entry) -> dict[str, Any]:
    """What is known of a run, by `COLUMNS`; None for what is not. ``epochs`` are those trained by now."""
    if entry.record is not None and entry.status in ("done", "failed"):
        return row_of(entry.record)
    progress = entry.progress or {}
    run = (entry.record or progress).get("run", {})
    facts: dict[str, Any] = dict.fromkeys(COLUMNS) | {name: run[name] for name in run if name in COLUMNS}
    if run:
        facts["recipe"] = run["recipe"]["name"]
    if "began" in progress:
        facts["started"] = datetime.fromtimestamp(progress["began"], timezone.utc).isoformat(timespec="seconds")
    return facts | {
        "signature": entry.signature, "status": entry.status, "epochs": progress.get("epoch"), "reason": entry.reason,
    }  # fmt: skip


def _several(value: Any) -> str:
    """A value, or the first of many, on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{printable(name)} {_several(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_several, value[:20])) + (f", ... ({len(value)})" if len(value) > 20 else "")
    return f"{value:.6g}" if isinstance(value, float) else printable(value)


def _number(value: Any, digits: str) -> str:
    return format(value, digits) if isinstance(value, (int, float)) else ""


def _clock(seconds: Any) -> str:
    from roadmap.study.progress import clock

    return clock(seconds) if isinstance(seconds, (int, float)) else ""


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _counted(counts: dict[str, int]) -> str:
    always = ("done", "running", "failed")
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number or name in always)


def _size(count: float) -> str:
    if count < 1024:
        return plural(int(count), "byte")
    unit = next((unit for unit in (1, 2) if count < 1024 ** (unit + 1)), 3)
    return f"{count / 1024**unit:.1f} {('KiB', 'MiB', 'GiB')[unit - 1]}"
