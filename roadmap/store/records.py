"""What a run's record is, and the finished runs of a store, read. docs/store.md has the schema.

A run appears under ``runs`` whole or not at all: it is written elsewhere and renamed. It names its files and their
sizes, so that one which lost a part is known. Nothing here is ever unpickled.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.checks import RoadmapError, cause

if TYPE_CHECKING:
    import numpy as np

FORMAT = 2
MEASURED = "measured.json"
RECORD, HISTORY, WEIGHTS, PROGRESS, STOP = "run.json", "history.csv", "weights.safetensors", "progress.json", "stop"
#: Which test images a run got right: a bit each, the first in the highest bit of the first byte.
CORRECT = "correct.bits"
DEFAULT_STORE = Path("results") / "store"

#: Columns of ``trajectory.csv`` and of every table of runs, in order, and the part of a run's record each is kept in.
COLUMNS = {
    "regime": "run",
    "step": "run",
    "adopted": "run",
    "seed": "run",
    "status": "result",
    "gmacs": "cost",
    "params": "cost",
    "activations": "cost",
    "backbone_gmacs": "cost",
    "backbone_params": "cost",
    "task": "run",
    "metric": "labels",
    "score": "result",
    "top1": "result",
    "top5": "result",
    "loss": "result",
    "train_loss": "result",
    "epochs": "result",
    "seconds": "result",
    "images_per_second": "result",
    "data_seconds": "result",
    "wall_seconds": "result",
    "estimated_seconds": "origin",
    "data": "run",
    "image_size": "run",
    "width": "run",
    "depth": "run",
    "ablation": "run",
    "reference": "run",
    "steps": "run",
    "match": "run",
    "match_factor": "run",
    "stem_stride": "labels",
    "recipe": "labels",
    "optimizer": "labels",
    "batch_size": "labels",
    "lr": "labels",
    "precision": "run",
    "initial": "run",
    "compile": "labels",
    "device": "environment",
    "device_name": "environment",
    "devices": "environment",
    "threads": "environment",
    "platform": "environment",
    "python": "environment",
    "torch": "environment",
    "timm": "environment",
    "pytorch_lightning": "environment",
    "roadmap": "environment",
    "started": "origin",
    "attempts": "origin",
    "command": "origin",
    "commit": "origin",
    "dirty": "origin",
    "source": "origin",
    "signature": "run",
    "reason": "result",
}
#: Columns that records of earlier versions lack.
LATER = (
    "initial",
    "data_seconds",
    "commit",
    "dirty",
    "source",
    "ablation",
    "reference",
    "steps",
    "match",
    "match_factor",
    "backbone_gmacs",
    "backbone_params",
)
#: Columns that these records lack, too, and that follow from the rest of them.
DERIVED = ("task", "metric", "score")
#: The metrics of runs whose records do not say which they have: the score, and another.
FIRST_METRICS = ("top1", "top5")
#: States of a run in the store. ``unreadable``: by this version or this user; nothing is known of it, nothing removed.
STATUSES = ("done", "running", "interrupted", "failed", "damaged", "unreadable")


class DamagedError(RoadmapError):
    """A finished run lost a part."""


@dataclass(frozen=True)
class Entry:
    """A run as the store has it now: its ``status`` of `STATUSES`, and as much as there is of its record, its last
    report and the reason of a failure or damage. A ``running`` run that failed before has a record, too."""

    signature: str
    status: str
    record: dict[str, Any] | None = None
    progress: dict[str, Any] | None = None
    reason: str | None = None


class Records:
    """The finished and failed runs in a folder. Reading never changes it."""

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)

    def signatures(self) -> list[str]:
        """Signatures of all runs that are finished or failed, sorted."""
        try:
            return signatures_in(self.folder / "runs")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RoadmapError(f"{self.folder / 'runs'} cannot be read: {cause(error)}") from None

    def path(self, signature: str) -> Path:
        """The folder of a finished run. Raises `RoadmapError` for what cannot be a signature, such as ``../x``."""
        return self.folder / "runs" / check_signature(signature)

    def record(self, signature: str) -> dict[str, Any] | None:
        """The record of a run that is finished or failed, or None.

        Raises `DamagedError` where a file of it is missing, cut off or no record, and `RoadmapError` where another
        version wrote it.
        """
        looked_at: tuple[int, ...] | None = ()
        while True:
            try:
                return self._read(signature)
            except DamagedError:
                # Removed or replaced while it was read? What is damaged is so at a second look at the same folder, too.
                found = self._identity(signature)
                if found == looked_at:
                    raise
                looked_at = found

    def _read(self, signature: str) -> dict[str, Any] | None:
        folder = os.fspath(self.path(signature))
        path = Path(folder, RECORD)
        try:
            text = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            if os.path.lexists(folder):
                raise DamagedError(f"{folder} has no {RECORD}") from None
            return None
        except OSError as error:
            raise RoadmapError(f"{path} cannot be read: {cause(error)}") from None
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            raise DamagedError(f"{path} is cut off or overwritten") from None
        check_format(path, content, FORMAT)
        try:
            if content["signature"] != signature:
                raise DamagedError(f"{path} belongs to another run, {content['signature']}")
            content.setdefault("correct", None)  # earlier versions kept none
            for name, facts in files_of(content).items():
                if name not in (HISTORY, WEIGHTS, CORRECT):
                    raise DamagedError(f"{path} names a file that is none of a run's, {name!r}")
                if os.stat(f"{folder}/{name}").st_size != facts["bytes"]:  # noqa: PTH116  (a third of Path's time)
                    raise DamagedError(f"{folder}/{name} is cut off or overwritten")
            for column, part in COLUMNS.items():
                of_another_task = column in FIRST_METRICS and column not in metrics_of(content)
                if of_another_task or column in (*LATER, *DERIVED):
                    content[part].setdefault(column, None)
                content[part][column]
        except (KeyError, TypeError, AttributeError):
            raise DamagedError(f"{path} is damaged: parts of it are missing or of the wrong kind") from None
        except OSError:
            raise DamagedError(f"{folder}/{name} is missing") from None
        return content

    def _identity(self, signature: str) -> tuple[int, ...] | None:
        """What changes when a run's folder is replaced; None while there is none."""
        with contextlib.suppress(OSError):
            facts = self.path(signature).lstat()
            return facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns
        return None

    def settled(self, signature: str) -> dict[str, Any] | None:
        """The record of a run that need not be trained; None for one that is missing, damaged or worth another try."""
        with contextlib.suppress(DamagedError):
            record = self.record(signature)
            return record if is_settled(record) else None
        return None

    def damaged(self, signature: str) -> str | None:
        """What is wrong with a finished run, or None."""
        try:
            self.record(signature)
        except DamagedError as error:
            return str(error)
        return None

    def verify(self, signature: str) -> str | None:
        """As `damaged`, and every byte of every file is looked at."""
        try:
            record = self.record(signature)
        except DamagedError as error:
            return str(error)
        for name, facts in (files_of(record) if record else {}).items():
            path = self.path(signature) / name
            try:
                if digest(path) != facts.get("sha256"):
                    return f"{path} is not what was written"
            except OSError as error:
                return f"{path} cannot be read: {cause(error)}"
        return None

    def history(self, signature: str) -> list[dict[str, float]]:
        """One mapping an epoch of a finished run."""
        with (self.path(signature) / HISTORY).open(newline="", encoding="utf-8") as lines:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(lines)]

    def correct(self, signature: str) -> np.ndarray | None:
        """Which test images a finished run got right in the test that gives its top1: bool (N,), in their order.

        None where it kept no record of them: it failed, or an earlier version made it. Raises `DamagedError` where that
        is not a bit an image, and as `record`.
        """
        import numpy as np

        record = self.record(signature)
        if record is None or record["correct"] is None:
            return None
        path = self.path(signature) / CORRECT
        try:
            packed = np.frombuffer(path.read_bytes(), np.uint8)
        except OSError as error:
            raise DamagedError(f"{path} cannot be read: {error.strerror}") from None
        images = record["data"]["test"]
        if not isinstance(images, int) or len(packed) != -(-images // 8):
            raise DamagedError(f"{path} is not a bit for each of {images} test images")
        return np.unpackbits(packed, count=images).astype(bool)


def check_signature(text: str) -> str:
    """The text itself if it can be a run's signature or the beginning of one. Raises `RoadmapError`."""
    if not re.fullmatch(r"[0-9a-f]{1,16}", text):
        raise RoadmapError(
            f"{text!r} is not the name of a run: give its signature, up to 16 digits of 0-9 and a-f, as roadmap "
            "list shows it"
        )
    return text


def files_of(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The files of a run beside its record, by name. Versions that know nothing of `CORRECT` refuse it in ``files``."""
    correct = record["correct"]
    return record["files"] if correct is None else {**record["files"], CORRECT: correct}


def is_settled(record: dict[str, Any] | None) -> bool:
    """Whether a record says that its run need not be trained: it is done, or would fail again."""
    return record is not None and not record["result"]["retry"]


def row_of(record: dict[str, Any]) -> dict[str, Any]:
    """A record as one flat mapping of `COLUMNS`, and of the ``score`` and metrics of its task that are not among them;
    names in a list are joined by +."""
    row = {column: record[part][column] for column, part in COLUMNS.items()}
    metrics = metrics_of(record)
    row |= {"metric": metrics[0], "score": record["result"].get(metrics[0])}
    row |= {name: record["result"].get(name) for name in metrics}
    return {column: "+".join(value) if isinstance(value, (list, tuple)) else value for column, value in row.items()}


def metrics_of(record: dict[str, Any]) -> tuple[str, ...]:
    """The metrics of a record's task, by the names that they have in its result; the first is the score."""
    return tuple(record["labels"].get("metrics") or FIRST_METRICS)


def columns_of(rows: Iterable[dict[str, Any]]) -> list[str]:
    """`COLUMNS`, and behind them what else rows of `row_of` have."""
    return [*dict.fromkeys(name for row in (COLUMNS, *rows) for name in row)]


def csv_text(rows: list[dict[str, Any]], columns: Iterable[str] | None = None) -> str:
    """A table as comma-separated values, by default with the columns of all its rows."""
    text = io.StringIO()
    names = list(columns or dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    if names:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_json(path: Path, newest: int) -> dict[str, Any]:
    """A JSON file that names its format. Raises `RoadmapError` for damage and for a format above ``newest``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RoadmapError(f"{path} cannot be read: {cause(error)}") from None
    check_format(path, content, newest)
    return content


def check_format(path: Path, content: Any, newest: int) -> None:
    """Raise `RoadmapError` unless ``content`` says that it has the format ``newest``."""
    found = content.get("format") if isinstance(content, dict) else None
    if found != newest:
        has = "names no format" if found is None else f"has format {found}"
        raise RoadmapError(
            f"{path} {has}, but this version reads format {newest}: "
            "use the version of roadmap that wrote it, or another folder"
        )


def is_signature(name: str) -> bool:
    """Whether this is the signature of a run: 16 hexadecimal digits."""
    return re.fullmatch(r"[0-9a-f]{16}", name) is not None


def signatures_in(folder: Path) -> list[str]:
    """The signatures that name something in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_signature(entry.name))


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    found = hashlib.sha256()
    with path.open("rb") as content:
        while piece := content.read(2**20):
            found.update(piece)
    return found.hexdigest()
