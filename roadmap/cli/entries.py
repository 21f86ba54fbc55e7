"""What the commands on the store share: opening it, and the words for its runs."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from roadmap.checks import RoadmapError
from roadmap.formatting import plural
from roadmap.markup import printable
from roadmap.store.records import COLUMNS, Entry, row_of
from roadmap.store.store import Store, store_at

STUDY_FOLDER = click.argument(
    "study", required=False, type=click.Path(path_type=Path, file_okay=False), metavar="[STUDY_FOLDER]"
)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def open_store(folder: Path | None) -> Store:
    """The store in a folder, by default the usual one. Raises `RoadmapError` where there is none."""
    store = store_at(folder)
    store.check()
    return store


def find_entry(store: Store, beginning: str) -> Entry:
    """The one run whose signature begins so. Raises `RoadmapError` for none or several."""
    signature = store.find(beginning)
    entry = store.entry(signature)
    if entry is None:
        raise removed_meanwhile(store, signature)
    return entry


def removed_meanwhile(store: Store, signature: str) -> RoadmapError:
    """The error for a run that vanished between two looks."""
    return RoadmapError(f"run {signature} has just been removed from {store.folder}")


def open_study(folder: Path) -> tuple[list[dict[str, Any]], Store]:
    """The runs that a study asked for, and its store."""
    from roadmap.store.folder import StudyFolder

    if click.get_current_context().params["store"]:
        raise RoadmapError(f"{folder} names its own store: leave out --store")
    study = StudyFolder(folder).study()
    return study["runs"], open_store((folder / study["store"]).resolve())


def description(entry: Entry) -> str:
    """A run in a few words: signature, network, seed and status."""
    facts = facts_of(entry)
    label = f" {printable(facts['step'])} seed {printable(facts['seed'])}" if facts["step"] else ""
    return f"{entry.signature}{label} ({entry.status})"


def facts_of(entry: Entry) -> dict[str, Any]:
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
        "signature": entry.signature,
        "status": entry.status,
        "epochs": progress.get("epoch"),
        "reason": entry.reason,
    }


def value_text(value: Any) -> str:
    """A value, or the first of many, on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{printable(name)} {value_text(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(value_text, value[:20])) + (f", ... ({len(value)})" if len(value) > 20 else "")
    return f"{value:.6g}" if isinstance(value, float) else printable(value)


def number_text(value: Any, digits: str) -> str:
    """A number with these digits; empty for anything else."""
    return format(value, digits) if isinstance(value, (int, float)) else ""


def clock_text(seconds: Any) -> str:
    """A duration; empty for anything but a number of seconds."""
    from roadmap.running.progress import clock

    return clock(seconds) if isinstance(seconds, (int, float)) else ""


def size_text(count: float) -> str:
    """A number of bytes in the unit that suits it."""
    if count < 1024:
        return plural(int(count), "byte")
    unit = next((unit for unit in (1, 2) if count < 1024 ** (unit + 1)), 3)
    return f"{count / 1024**unit:.1f} {('KiB', 'MiB', 'GiB')[unit - 1]}"
