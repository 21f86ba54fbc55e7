"""The results of a study on disk, the only truth; everything a reader sees is computed from it.

::

    FOLDER/study.json                     what was asked, and its runs in order
    FOLDER/runs/SIGNATURE/run.json        a finished run: its spec, cost, result, history, and what made it
    FOLDER/runs/SIGNATURE/weights.safetensors   its trained weights (none if it diverged)
    FOLDER/partial/SIGNATURE/             a run that is not finished, with its last checkpoint
    FOLDER/trajectory.csv, .png, .svg     a row a run, and the figure, made again from the above at will

A run appears under ``runs`` whole or not at all: it is written elsewhere and renamed.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

from roadmap.checks import RoadmapError
from roadmap.files import whole_file

FORMAT = 1
STUDY = "study.json"
TABLE = "trajectory.csv"
WEIGHTS = "weights.safetensors"

#: Columns of trajectory.csv and of ``load_study(...).runs``, in order, and the part of a run's record each is kept in.
COLUMNS = {
    "regime": "run", "step": "run", "adopted": "run", "seed": "run", "status": "result", "gmacs": "cost",
    "params": "cost", "activations": "cost", "top1": "result", "top5": "result", "loss": "result",
    "train_loss": "result", "epochs": "result", "seconds": "result", "images_per_second": "result", "data": "run",
    "image_size": "run", "width": "run", "depth": "run", "stem_stride": "labels", "recipe": "labels",
    "optimizer": "labels", "batch_size": "labels", "lr": "labels", "precision": "run", "compile": "labels",
    "device": "environment", "device_name": "environment", "threads": "environment", "platform": "environment",
    "python": "environment", "torch": "environment", "timm": "environment", "pytorch_lightning": "environment",
    "roadmap": "environment", "started": "origin", "command": "origin", "signature": "run", "reason": "result",
}  # fmt: skip


class Store:
    """One study's folder."""

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)

    def begin(self, study: dict[str, Any], resume: bool) -> None:
        """Claim the folder for a study, given as plain values with its ``runs``.

        Raises `RoadmapError`, and changes nothing, where the folder holds another study or anything else, or this
        study and ``resume`` is not set.
        """
        try:
            present = sorted(entry.name for entry in self.folder.iterdir()) if self.folder.exists() else []
        except OSError as error:
            raise RoadmapError(f"{self.folder} cannot be used as output folder: {error.strerror}") from None
        if STUDY in present:
            if [run["signature"] for run in self.study()["runs"]] != [run["signature"] for run in study["runs"]]:
                raise RoadmapError(f"{self.folder} holds another study's results: choose another --out")
            if not resume:
                raise RoadmapError(
                    f"{self.folder} holds results of this study already: add --resume to go on with it, "
                    "or choose another --out"
                )
            return
        if present:
            raise RoadmapError(f"{self.folder} is not empty and holds no study: choose another --out")
        if resume:
            raise RoadmapError(f"there is nothing to resume in {self.folder}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / STUDY, _json({"format": FORMAT, **study}))
        except OSError as error:
            raise RoadmapError(f"{self.folder} cannot be written: {error.strerror}") from None

    def study(self) -> dict[str, Any]:
        """What was asked. Raises `RoadmapError` where the folder holds no study, or one of another format."""
        if not self.folder.is_dir():
            raise RoadmapError(f"there is no folder {self.folder}")
        if not (self.folder / STUDY).is_file():
            raise RoadmapError(f"{self.folder} holds no study (no {STUDY})")
        return _read(self.folder / STUDY, ("runs",))

    def partial(self, signature: str) -> Path:
        """The folder of a run that is being made."""
        path = self.folder / "partial" / signature
        path.mkdir(parents=True, exist_ok=True)
        return path

    def record(self, signature: str) -> dict[str, Any] | None:
        """A finished run's record, or None. Raises `RoadmapError` for a record that is damaged."""
        path = self.folder / "runs" / signature / "run.json"
        if not path.is_file():
            return None
        try:
            return _read(path, tuple(set(COLUMNS.values())))
        except RoadmapError as error:
            raise RoadmapError(f"{error}; without its folder {path.parent} that run is trained again") from None

    def has_weights(self, signature: str) -> bool:
        """Whether a finished run's weights are there."""
        return (self.folder / "runs" / signature / WEIGHTS).is_file()

    def finish(self, signature: str, record: dict[str, Any]) -> None:
        """Move a run from ``partial``, where its weights lie, among the finished ones."""
        partial, final = self.partial(signature), self.folder / "runs" / signature
        write_text(partial / "run.json", _json({"format": FORMAT, **record}))
        for path in partial.iterdir():
            if path.name not in ("run.json", WEIGHTS):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        final.parent.mkdir(exist_ok=True)
        if final.exists():  # a run that had lost a part
            shutil.rmtree(final)
        partial.replace(final)
        if not any(partial.parent.iterdir()):
            partial.parent.rmdir()

    def rows(self) -> list[dict[str, Any]]:
        """One flat mapping a finished run, in the study's order."""
        rows = []
        for run in self.study()["runs"]:
            record = self.record(run["signature"])
            if record is not None:
                # The labels are this study's: another one may have asked for the same training by another name.
                record["run"] = run
                rows.append({name: record[part][name] for name, part in COLUMNS.items()})
        return rows

    def write_table(self) -> Path:
        """Write trajectory.csv from the finished runs."""
        text = io.StringIO()
        rows = self.rows()
        if rows:
            writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        write_text(self.folder / TABLE, text.getvalue())
        return self.folder / TABLE


def read_rows(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """One flat mapping a finished run of the study in ``folder``. Raises `RoadmapError` where there is none."""
    return Store(folder).rows()


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1) + "\n"


def _read(path: Path, parts: tuple[str, ...]) -> dict[str, Any]:
    """A JSON file of this format that has these ``parts``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RoadmapError(f"{path} cannot be read: {error}") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise RoadmapError(f"{path} has format {found}, but this version reads format {FORMAT}")
    for part in parts:
        if not isinstance(content.get(part), (list, dict)):
            raise RoadmapError(f"{path} is damaged: it has no {part}")
    return content
