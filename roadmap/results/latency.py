"""How long a study's networks take to answer, measured on some machine and kept in the study's folder."""

from __future__ import annotations

from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from roadmap.checks import RoadmapError
from roadmap.files import write_text
from roadmap.formatting import plural
from roadmap.results.schema import STEP, TIME, Column, Schema, read_as_text, typed
from roadmap.tasks import check_default
from roadmap.tasks.task import Task

if TYPE_CHECKING:
    from roadmap.network.families import NetworkDesign
    from roadmap.store.store import Store

#: The table of latencies in a study's folder.
TABLE = "latency.csv"
#: A row a network that `roadmap bench` measured: the columns of latency.csv.
LATENCIES: Schema = {
    "step": STEP,
    "signature": Column("text", "one of its runs: where the study has others by now, the row counts no more"),
    "latency": Column("float64", "median time that a batch takes to pass through the network in evaluation", "ms"),
    "latency_p95": Column("float64", "the time that 95 % of the batches take at most", "ms"),
    "latency_error": Column("float64", "standard error of the median, from its turns", "ms"),
    "calls": Column("int64", "batches that were timed"),
    "batch_size": Column("int64", "images in a batch"),
    "image_size": Column("int64", "side of the images", "px"),
    "device_name": Column("text", "name of the processor or graphics card"),
    "threads": Column("Int64", "CPU threads; missing: torch's choice"),
    "torch": Column("text", "version"),
    "measured": Column(TIME, "when it was"),
}
#: Differences of latency below this many standard errors are noise: nothing is divided by them.
CERTAIN = 3.0


class Kept(Protocol):
    """What is asked of a `roadmap.results.study.Study`: its folder, its runs, and where they are kept."""

    @property
    def path(self) -> Path: ...
    @property
    def task(self) -> Task: ...
    @property
    def runs(self) -> pd.DataFrame: ...
    @property
    def store(self) -> Store | None: ...


def designs_of(study: Kept) -> dict[str, NetworkDesign]:
    """Network -> its design, from the records of its runs. Raises `RoadmapError` where the store is not there."""
    from roadmap.network.building import design_from_dict

    check_default(study.task, "latency", str(study.path))
    if study.store is None:
        raise RoadmapError(f"the store with the networks of {study.path} is not there: only its tables were kept")
    designs = {}
    for row in study.runs.drop_duplicates("step").to_dict("records"):
        record = study.store.record(row["signature"])
        if record is None:
            raise RoadmapError(f"run {row['signature']} of {study.path} is not in {study.store.folder}")
        designs[row["step"]] = design_from_dict(record["run"]["design"])
    return designs


def measure_latency(
    study: Kept,
    batch_size: int,
    device: str,
    device_name: str,
    seconds: float,
    threads: int | None,
    image_size: int | None = None,
) -> pd.DataFrame:
    """Measure every network of a study, and keep the table in its folder; a later measurement takes its place.

    Columns: `LATENCIES`. ``image_size``: by default the study's own. Raises `RoadmapError`.
    """
    from roadmap.cost.measuring import latencies

    size = image_size or int(study.runs["image_size"].iloc[0])
    found = latencies(designs_of(study), size, batch_size, device, seconds, threads)
    facts: dict[str, Any] = {
        "batch_size": batch_size,
        "image_size": size,
        "device_name": device_name,
        "threads": threads,
        "torch": version("torch"),
        "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    signatures = dict(zip(study.runs["step"], study.runs["signature"], strict=True))
    rows = [
        {
            "step": name,
            "signature": signatures[name],
            "latency": one.median,
            "latency_p95": one.percentile_95,
            "latency_error": one.std_error,
            "calls": one.calls,
            **facts,
        }
        for name, one in found.items()
    ]
    table = typed(pd.DataFrame(rows), LATENCIES)
    write_text(study.path / TABLE, table.to_csv(index=False, lineterminator="\n"))
    return table


def read_latency(folder: Path, runs: pd.DataFrame) -> pd.DataFrame | None:
    """The table of latencies of a study's folder, of the networks of its ``runs``; None where none was measured. Raises
    `RoadmapError` where it is damaged."""
    path = folder / TABLE
    if not path.is_file():
        return None
    try:
        table = typed(read_as_text(path, LATENCIES, "latencies"), LATENCIES)
    except RoadmapError as error:
        raise RoadmapError(f"{path} is damaged: {error}; roadmap bench --study {folder} measures it anew") from None
    known = table[table["signature"].isin(runs["signature"])]
    return known if len(known) else None


def with_latency(effects: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """A table of effects with what each costs in latency, and how many points it brings a millisecond, where it is the
    difference of two networks that were measured."""
    known = table.set_index("step")
    change, ratio = [], []
    for row in effects.to_dict("records"):
        pair = [row["network"], row["against"]]
        there = all(name in known.index for name in pair)
        difference = known.loc[pair[0], "latency"] - known.loc[pair[1], "latency"] if there else float("nan")
        error = known.loc[pair, "latency_error"].pow(2).sum() ** 0.5 if there else float("nan")
        change.append(difference)
        ratio.append(row["estimate"] / difference if abs(difference) > CERTAIN * error else float("nan"))
    return effects.assign(latency=change, points_per_ms=ratio)


def measured_on(table: pd.DataFrame) -> str:
    """Where and how latencies were measured, in a few words."""
    row = table.iloc[0]
    threads = "" if pd.isna(row["threads"]) else f", {plural(int(row['threads']), 'thread')}"
    images = "one image" if row["batch_size"] == 1 else f"batches of {row['batch_size']} images"
    return f"{row['device_name']}{threads}, {images} of {row['image_size']} px"
