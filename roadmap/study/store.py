"""The store: finished and unfinished runs on disk, shared by all studies; the only truth. docs/store.md has its schema.

::

    STORE/store.json                 {"format": 2}
    STORE/runs/SIGNATURE/            a finished or failed run: run.json, history.csv, weights.safetensors
    STORE/partial/SIGNATURE/         a run in work: its last checkpoint, and progress.json
    STORE/locks/SIGNATURE            held (flock) by the process that trains the run
    STORE/measured.json              seconds and memory that `roadmap plan` measured

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
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from roadmap.checks import RoadmapError
from roadmap.files import write_text

FORMAT = 2
MARK = "store.json"
RECORD, HISTORY, WEIGHTS, PROGRESS, STOP = "run.json", "history.csv", "weights.safetensors", "progress.json", "stop"
DEFAULT_STORE = Path("results") / "store"
#: Seconds between two reports of a running run to its progress.json.
PROGRESS_INTERVAL = 0.5

#: Columns of ``trajectory.csv`` and of every table of runs, in order, and the part of a run's record each is kept in.
COLUMNS = {
    "regime": "run", "step": "run", "adopted": "run", "seed": "run", "status": "result", "gmacs": "cost",
    "params": "cost", "activations": "cost", "top1": "result", "top5": "result", "loss": "result",
    "train_loss": "result", "epochs": "result", "seconds": "result", "images_per_second": "result",
    "wall_seconds": "result", "estimated_seconds": "origin", "data": "run",
    "image_size": "run", "width": "run", "depth": "run", "stem_stride": "labels", "recipe": "labels",
    "optimizer": "labels", "batch_size": "labels", "lr": "labels", "precision": "run", "compile": "labels",
    "device": "environment", "device_name": "environment", "devices": "environment", "threads": "environment",
    "platform": "environment",
    "python": "environment", "torch": "environment", "timm": "environment", "pytorch_lightning": "environment",
    "roadmap": "environment", "started": "origin", "attempts": "origin", "command": "origin", "signature": "run",
    "reason": "result",
}  # fmt: skip
#: What is left over for so many seconds has no owner any more.
_FORGOTTEN = 3600.0


def check_signature(text: str) -> str:
    """The text itself if it can be a run's signature or the beginning of one. Raises `RoadmapError`."""
    if not re.fullmatch(r"[0-9a-f]{1,16}", text):
        raise RoadmapError(f"'{text}' is no run: a run is named by its signature, up to 16 digits of 0-9 and a-f")
    return text


class Store:
    """A folder of runs. Reading never changes it; any number of processes may read and write at once."""

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)

    def begin(self) -> None:
        """Make the store, or see that it is one of this format. Raises `RoadmapError`, and changes nothing then."""
        try:
            if not (self.folder / MARK).exists():
                present = sorted(entry.name for entry in self.folder.iterdir()) if self.folder.exists() else []
                # Another process may be at this very point: its temporary file begins with a dot.
                if any(not name.startswith(".") for name in present):
                    raise RoadmapError(f"{self.folder} is not empty and holds no store: choose another --store")
                self.folder.mkdir(parents=True, exist_ok=True)
                write_text(self.folder / MARK, json.dumps({"format": FORMAT}) + "\n")
        except OSError as error:
            raise RoadmapError(f"{self.folder} cannot be used as store: {error.strerror}") from None
        self.check()
        for name in ("runs", "partial", "locks"):
            try:
                (self.folder / name).mkdir(exist_ok=True)
            except OSError as error:
                raise RoadmapError(f"{self.folder} cannot be written: {error.strerror}") from None
        if not all(os.access(self.folder / name, os.W_OK) for name in ("runs", "partial", "locks")):
            raise RoadmapError(f"{self.folder} cannot be written: you may only read it")

    def check(self) -> None:
        """Raise `RoadmapError` unless this is a store of a format that this version reads."""
        if not self.folder.is_dir():
            raise RoadmapError(f"there is no folder {self.folder}")
        if not (self.folder / MARK).is_file():
            raise RoadmapError(f"{self.folder} holds no store (no {MARK})")
        read_json(self.folder / MARK, FORMAT)

    # --- finished and failed runs ---

    def signatures(self) -> list[str]:
        """Signatures of all runs that are finished or failed, sorted."""
        try:
            with os.scandir(self.folder / "runs") as entries:
                return sorted(entry.name for entry in entries if re.fullmatch(r"[0-9a-f]{16}", entry.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RoadmapError(f"{self.folder / 'runs'} cannot be read: {error.strerror}") from None

    def find(self, beginning: str) -> str:
        """The one run, finished or in work, whose signature begins so. Raises `RoadmapError` for none or several."""
        check_signature(beginning)
        known = sorted(set(self.signatures()) | set(self._in_work()))
        found = [signature for signature in known if signature.startswith(beginning)]
        if not found:
            raise RoadmapError(f"there is no run {beginning} in {self.folder}; roadmap list shows those there are")
        if len(found) > 1:
            raise RoadmapError(f"{len(found)} runs begin with {beginning}: {', '.join(found[:5])}; give more digits")
        return found[0]

    def path(self, signature: str) -> Path:
        """The folder of a finished run."""
        return self.folder / "runs" / signature

    def record(self, signature: str) -> dict[str, Any] | None:
        """The record of a run that is finished or failed, or None.

        Raises `DamagedError` where a file of it is missing, cut off or no record, and `RoadmapError` where another
        version wrote it.
        """
        path = self.path(signature) / RECORD
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            if self.path(signature).is_dir():
                raise DamagedError(f"{self.path(signature)} has no {RECORD}") from None
            return None
        except OSError as error:
            raise RoadmapError(f"{path} cannot be read: {error.strerror}") from None
        try:
            content = json.loads(text)
        except ValueError:
            raise DamagedError(f"{path} is cut off or overwritten") from None
        check_format(path, content, FORMAT)
        try:
            if content["signature"] != signature:
                raise DamagedError(f"{path} belongs to another run, {content['signature']}")
            for name, facts in content["files"].items():
                if (self.path(signature) / name).stat().st_size != facts["bytes"]:
                    raise DamagedError(f"{self.path(signature) / name} is cut off or overwritten")
            for column, part in COLUMNS.items():
                content[part][column]
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedError(f"{path} is damaged: it lacks {error}") from None
        except OSError:
            raise DamagedError(f"{self.path(signature) / name} is missing") from None
        return content

    def rows(self, signatures: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """One flat mapping, of `COLUMNS`, for each of these runs that is finished or failed; all runs by default."""
        rows = []
        for signature in self.signatures() if signatures is None else signatures:
            with contextlib.suppress(DamagedError):
                record = self.record(signature)
                if record is not None:
                    rows.append(row_of(record))
        return rows

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
        for name, facts in (record or {"files": {}})["files"].items():
            if _digest(self.path(signature) / name) != facts["sha256"]:
                return f"{self.path(signature) / name} is not what was written"
        return None

    def history(self, signature: str) -> list[dict[str, float]]:
        """One mapping an epoch of a finished run."""
        with (self.path(signature) / HISTORY).open(newline="", encoding="utf-8") as lines:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(lines)]

    def remove(self, signature: str) -> None:
        """Remove a finished run and whatever is left of its work. Raises `RoadmapError` while it is in work."""
        with self.claim(signature) as mine:
            if not mine:
                raise RoadmapError(f"run {signature} is being trained: stop that first")
            # A rename first: what is under `runs` is whole at any moment.
            self._set_aside(self.path(signature))
            shutil.rmtree(self.folder / "partial" / signature, ignore_errors=True)
        self._unlock(signature)

    # --- runs in work ---

    @contextlib.contextmanager
    def claim(self, signature: str, patience: float = 0.0) -> Iterator[bool]:
        """Whether this process now has the run to itself, until the end of the block or its own.

        ``patience``: seconds to wait for it; others hold it for a moment to see whether it is free.
        """
        lock = FileLock(self.folder / "locks" / signature)
        try:
            lock.acquire(timeout=patience, poll_interval=0.02)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def is_claimed(self, signature: str) -> bool:
        """Whether a living process has the run to itself."""
        if not (self.folder / "locks" / signature).exists():
            return False
        try:
            with self.claim(signature) as mine:
                return not mine
        except OSError:  # a store that may only be read: fresh progress is the sign of life then
            progress = self.progress(signature)
            return progress is not None and time.time() - progress["updated"] < 20 * PROGRESS_INTERVAL

    def partial(self, signature: str) -> Path:
        """The folder of a run in work."""
        path = self.folder / "partial" / signature
        path.mkdir(parents=True, exist_ok=True)
        return path

    def report(self, signature: str, progress: dict[str, Any]) -> None:
        """Say how far a run is, for whoever looks. Not worth a run: what cannot be written is not."""
        path = self.folder / "partial" / signature / PROGRESS
        with contextlib.suppress(OSError):
            temporary = path.with_name(f".{PROGRESS}.{os.getpid()}")
            temporary.write_text(json.dumps(progress | {"updated": time.time()}), encoding="utf-8")
            temporary.replace(path)

    def progress(self, signature: str) -> dict[str, Any] | None:
        """The last report of a run in work, or None."""
        try:
            content = json.loads((self.folder / "partial" / signature / PROGRESS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) and "updated" in content else None

    def running(self) -> dict[str, dict[str, Any]]:
        """Signature -> last report, of the runs that a living process trains."""
        return {name: self.progress(name) or {} for name in self._in_work() if self.is_claimed(name)}

    def interrupted(self) -> list[str]:
        """Signatures of runs that were begun and that nobody trains now."""
        return [name for name in self._in_work() if not self.is_claimed(name)]

    def ask_to_stop(self, signature: str) -> None:
        """Ask whoever trains this run to end after the epoch, saving it."""
        with contextlib.suppress(OSError):
            (self.folder / "partial" / signature / STOP).touch()

    def finish(self, signature: str, record: dict[str, Any], history: list[dict[str, Any]], weights: bool) -> None:
        """Put a run among the finished ones, with the weights that lie in its partial folder if it has any.

        Only the process that has claimed the run may do so. A record that was there is replaced. The last checkpoint
        is kept where the result says ``retry``: another start will go on with it.
        """
        partial = self.partial(signature)
        whole = partial / "whole"
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir()
        write_text(whole / HISTORY, csv_text(history))
        if weights:
            (partial / WEIGHTS).rename(whole / WEIGHTS)
        files = {path.name: {"bytes": path.stat().st_size, "sha256": _digest(path)} for path in whole.iterdir()}
        content = {"format": FORMAT, "signature": signature, "files": files, **record}
        write_text(whole / RECORD, json.dumps(content) + "\n")
        self._publish(signature)

    def recover(self, signature: str) -> None:
        """Put a run among the finished ones that was whole when its process died. Only whoever has claimed it may."""
        if (self.folder / "partial" / signature / "whole" / RECORD).is_file():
            self._publish(signature)

    def _publish(self, signature: str) -> None:
        partial = self.folder / "partial" / signature
        self._set_aside(self.path(signature))
        (partial / "whole").rename(self.path(signature))
        _sync(self.folder / "runs")
        record = self.record(signature)
        if record and not record["result"]["retry"]:
            shutil.rmtree(partial, ignore_errors=True)
            self._unlock(signature)

    def _set_aside(self, path: Path) -> None:
        if path.exists():
            aside = self.folder / "partial" / f".{path.name}.{os.getpid()}"
            path.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)

    def _unlock(self, signature: str) -> None:
        """Remove a lock's file. Whoever waits for it finds a file without a name, and looks at the run again."""
        (self.folder / "locks" / signature).unlink(missing_ok=True)

    def _in_work(self) -> list[str]:
        try:
            with os.scandir(self.folder / "partial") as entries:
                return sorted(entry.name for entry in entries if re.fullmatch(r"[0-9a-f]{16}", entry.name))
        except OSError:
            return []

    # --- housekeeping ---

    def garbage(self) -> list[Path]:
        """What no run needs: folders set aside, temporary files and data of processes that are gone, spare locks."""
        patterns = (".*", "partial/.*", "partial/*/.*")
        found = [path for pattern in patterns for path in self.folder.glob(pattern) if _forgotten(path)]
        known = set(self._in_work())
        found += [
            path
            for path in (self.folder / "locks").glob("*")
            if path.name not in known and not self.is_claimed(path.name)
        ]
        return sorted(found)


class DamagedError(RoadmapError):
    """A finished run lost a part."""


def row_of(record: dict[str, Any]) -> dict[str, Any]:
    """A record as one flat mapping of `COLUMNS`."""
    return {column: record[part][column] for column, part in COLUMNS.items()}


def csv_text(rows: list[dict[str, Any]]) -> str:
    """A table as comma-separated values, with the columns of all its rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    if rows:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_json(path: Path, newest: int) -> dict[str, Any]:
    """A JSON file that names its format. Raises `RoadmapError` for damage and for a format above ``newest``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RoadmapError(f"{path} cannot be read: {error}") from None
    check_format(path, content, newest)
    return content


def check_format(path: Path, content: Any, newest: int) -> None:
    """Raise `RoadmapError` unless ``content`` says that it has the format ``newest``."""
    found = content.get("format") if isinstance(content, dict) else None
    if found != newest:
        raise RoadmapError(
            f"{path} has format {found}, but this version reads format {newest}: "
            "use the version of roadmap that wrote it, or another folder"
        )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while piece := content.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _sync(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _forgotten(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > _FORGOTTEN
    return False
