"""The store: finished and unfinished runs on disk, shared by all studies; the only truth. docs/store.md has its schema.

::

    STORE/store.json                 {"format": 2}
    STORE/runs/SIGNATURE/            a finished or failed run: run.json, history.csv, weights.safetensors, correct.bits
    STORE/partial/SIGNATURE/         a run in work: its last checkpoint, and progress.json
    STORE/locks/SIGNATURE            held (flock) by the process that trains the run
    STORE/measured.json              seconds and memory that `roadmap plan` and --match time measured

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
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.checks import RoadmapError, cause
from roadmap.files import STORE_MARK as MARK
from roadmap.files import aside, whole_file, write_text

if TYPE_CHECKING:
    import numpy as np

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FORMAT = 2
MEASURED = "measured.json"
RECORD, HISTORY, WEIGHTS, PROGRESS, STOP = "run.json", "history.csv", "weights.safetensors", "progress.json", "stop"
#: Which test images a run got right: a bit each, the first in the highest bit of the first byte.
CORRECT = "correct.bits"
DEFAULT_STORE = Path("results") / "store"
#: Seconds between two reports of a running run to its progress.json.
PROGRESS_INTERVAL = 0.5

#: Columns of ``trajectory.csv`` and of every table of runs, in order, and the part of a run's record each is kept in.
COLUMNS = {
    "regime": "run", "step": "run", "adopted": "run", "seed": "run", "status": "result", "gmacs": "cost",
    "params": "cost", "activations": "cost", "top1": "result", "top5": "result", "loss": "result",
    "train_loss": "result", "epochs": "result", "seconds": "result", "images_per_second": "result",
    "data_seconds": "result", "wall_seconds": "result", "estimated_seconds": "origin", "data": "run",
    "image_size": "run", "width": "run", "depth": "run", "ablation": "run", "reference": "run",
    "steps": "run", "match": "run",
    "match_factor": "run", "stem_stride": "labels", "recipe": "labels",
    "optimizer": "labels", "batch_size": "labels", "lr": "labels", "precision": "run", "initial": "run",
    "compile": "labels",
    "device": "environment", "device_name": "environment", "devices": "environment", "threads": "environment",
    "platform": "environment",
    "python": "environment", "torch": "environment", "timm": "environment", "pytorch_lightning": "environment",
    "roadmap": "environment", "started": "origin", "attempts": "origin", "command": "origin",
    "commit": "origin", "dirty": "origin", "source": "origin", "signature": "run",
    "reason": "result",
}  # fmt: skip
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
)
#: Age in seconds from which temporary files have no owner any more.
_FORGOTTEN = 3600.0
#: Seconds to wait for a run that is to be removed: others hold it for a moment to see whether it is free.
_PATIENCE = 0.2
#: States of a run in the store. ``unreadable``: by this version or this user; nothing is known of it, nothing removed.
STATUSES = ("done", "running", "interrupted", "failed", "damaged", "unreadable")


@dataclass(frozen=True)
class Entry:
    """A run as the store has it now: its ``status`` of `STATUSES`, and as much as there is of its record, its last
    report and the reason of a failure or damage. A ``running`` run that failed before has a record, too."""

    signature: str
    status: str
    record: dict[str, Any] | None = None
    progress: dict[str, Any] | None = None
    reason: str | None = None


def check_signature(text: str) -> str:
    """The text itself if it can be a run's signature or the beginning of one. Raises `RoadmapError`."""
    if not re.fullmatch(r"[0-9a-f]{1,16}", text):
        raise RoadmapError(
            f"{text!r} is not the name of a run: give its signature, up to 16 digits of 0-9 and a-f, as roadmap "
            "list shows it"
        )
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
                # Another process may be at this very point: its file has a temporary name, with a dot, or its own.
                if any(not name.startswith(".") for name in present) and MARK not in present:
                    raise RoadmapError(f"{self.folder} is not empty and holds no store: choose another --store")
                self.folder.mkdir(parents=True, exist_ok=True)
                write_text(self.folder / MARK, json.dumps({"format": FORMAT}) + "\n")
        except OSError as error:
            raise RoadmapError(f"{self.folder} cannot be used as store: {cause(error)}") from None
        self.check()
        for name in ("runs", "partial", "locks"):
            try:
                (self.folder / name).mkdir(exist_ok=True)
            except OSError as error:
                raise RoadmapError(f"{self.folder} cannot be written: {cause(error)}") from None
        if not all(os.access(self.folder / name, os.W_OK) for name in ("runs", "partial", "locks")):
            raise RoadmapError(f"{self.folder} cannot be written: permission denied")

    def check(self) -> None:
        """Raise `RoadmapError` unless this is a store of a format that this version reads."""
        if not self.folder.is_dir():
            raise RoadmapError(f"there is no store in {self.folder}: roadmap run makes one, --store names another")
        if not (self.folder / MARK).is_file():
            raise RoadmapError(f"{self.folder} holds no store (no {MARK})")
        read_json(self.folder / MARK, FORMAT)

    # --- what was measured here ---

    def measured(self) -> dict[str, Any]:
        """What was measured on this machine, by what it depends on; nothing where the file is missing or damaged, for
        it can be measured again."""
        try:
            content = read_json(self.folder / MEASURED, FORMAT)["measured"]
        except (RoadmapError, KeyError):
            return {}
        return content if isinstance(content, dict) else {}

    def keep_measured(self, found: dict[str, Any]) -> None:
        """Add to what was measured."""
        content = {"format": FORMAT, "measured": {**self.measured(), **found}}
        write_text(self.folder / MEASURED, json.dumps(content) + "\n")

    # --- finished and failed runs ---

    def signatures(self) -> list[str]:
        """Signatures of all runs that are finished or failed, sorted."""
        try:
            return _signatures_in(self.folder / "runs")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RoadmapError(f"{self.folder / 'runs'} cannot be read: {cause(error)}") from None

    def find(self, beginning: str) -> str:
        """The one run, finished or in work, whose signature begins so. Raises `RoadmapError` for none or several."""
        if len(check_signature(beginning)) == 16 and any(os.path.lexists(path) for path in self.folders(beginning)):
            return beginning
        known = sorted(set(self.signatures()) | set(self._in_work()))
        found = [signature for signature in known if signature.startswith(beginning)]
        if not found:
            raise RoadmapError(f"there is no run {beginning} in {self.folder}; roadmap list shows those there are")
        if len(found) > 1:
            raise RoadmapError(f"{len(found)} runs begin with {beginning}: {', '.join(found[:5])}; give more digits")
        return found[0]

    def path(self, signature: str) -> Path:
        """The folder of a finished run. Raises `RoadmapError` for what cannot be a signature, such as ``../x``."""
        return self.folder / "runs" / check_signature(signature)

    def folders(self, signature: str) -> tuple[Path, Path]:
        """Where a run is when it is finished and while it is in work; there may be either, both or none."""
        return self.path(signature), self.folder / "partial" / signature

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
                if column in LATER:
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

    def entries(self) -> Iterator[Entry]:
        """Every run as it is now, whatever others do to the store meanwhile, in the order of signatures."""
        # In this order: a run that ends between the two listings is in both, and not in none.
        in_work = set(self._in_work())
        for signature in sorted(in_work | set(self.signatures())):
            entry = self._entry(signature, signature in in_work)
            if entry is not None:
                yield entry

    def entry(self, signature: str) -> Entry | None:
        """A run as it is now, or None where the store has nothing of it."""
        check_signature(signature)
        return self._entry(signature, self._has_work(signature))

    def _entry(self, signature: str, in_work: bool, mine: bool = False) -> Entry | None:
        """``mine``: this process has claimed the run, and trains nothing."""
        # In this order: a run that ends after the first look has its record at the second.
        claimed = in_work and not mine and self.is_claimed(signature)
        progress = self.progress(signature) if in_work else None
        record, lack, reason = None, "", None
        try:
            record = self.record(signature)
        except DamagedError as error:
            lack, reason = "damaged", str(error)
        except RoadmapError as error:
            lack, reason = "unreadable", str(error)
        if record is not None and record["result"]["status"] == "done":
            return Entry(signature, "done", record)
        if claimed:
            return Entry(signature, "running", record, progress or {})
        if lack:
            return Entry(signature, lack, None, progress, reason)
        if record is not None:
            return Entry(signature, "failed", record, progress, record["result"]["reason"])
        if in_work and self._has_work(signature):
            return Entry(signature, "interrupted", None, progress)
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
                if _digest(path) != facts.get("sha256"):
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

    def remove(self, *signatures: str) -> None:
        """Remove runs and whatever is left of their work.

        Raises `RoadmapError`, and removes none of them, while one is in work.
        """
        with contextlib.ExitStack() as claims:
            for signature in signatures:
                if not claims.enter_context(self.claim(signature, _PATIENCE)):
                    raise RoadmapError(f"run {signature} is being trained: stop that first")
            for signature in signatures:
                self._take_away(signature)

    def remove_if(self, signature: str, status: str) -> bool:
        """Remove a run if it has this status at the moment of its removal; whether it was so."""
        with self.claim(signature, _PATIENCE) as mine:
            entry = self._entry(signature, self._has_work(signature), mine) if mine else None
            if entry is None or entry.status != status:
                return False
            self._take_away(signature)
            return True

    def _take_away(self, signature: str) -> None:
        """Remove all of a run that this process has claimed."""
        # A rename first: what is under `runs` is whole at any moment.
        self._set_aside(self.path(signature))
        _delete(self.folder / "partial" / signature)
        self._unlock(signature)

    # --- runs in work ---

    @contextlib.contextmanager
    def claim(self, signature: str, patience: float = 0.0) -> Iterator[bool]:
        """Whether this process now has the run to itself, until the end of the block or its own.

        ``patience``: seconds to wait for it; others hold it for a moment to see whether it is free.
        """
        from filelock import FileLock, Timeout  # not needed to read

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
        """Whether a living process has the run to itself. Writes nothing, and two who look do not see each other."""
        path = self.folder / "locks" / signature
        try:
            if not path.exists():
                return False
            if fcntl is None:  # Windows
                with self.claim(signature) as mine:
                    return not mine
            with path.open("rb") as lock:
                return not _shared(lock.fileno())
        except FileNotFoundError:
            return False
        except OSError:  # a lock that may not be opened: fresh progress is the sign of life then
            progress = self.progress(signature)
            return progress is not None and time.time() - progress["updated"] < 20 * PROGRESS_INTERVAL

    def partial(self, signature: str) -> Path:
        """The folder of a run in work."""
        path = self.folder / "partial" / signature
        path.mkdir(parents=True, exist_ok=True)
        return path

    def report(self, signature: str, progress: dict[str, Any]) -> None:
        """Publish the progress of a run. A failure to write is ignored: it is not worth a run."""
        path = self.folder / "partial" / signature / PROGRESS
        with contextlib.suppress(OSError):
            temporary = aside(path)
            temporary.write_text(json.dumps(progress | {"updated": time.time()}), encoding="utf-8")
            temporary.replace(path)

    def progress(self, signature: str) -> dict[str, Any] | None:
        """The last report of a run in work, or None."""
        try:
            content = json.loads((self.folder / "partial" / signature / PROGRESS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        known = isinstance(content, dict) and isinstance(content.get("updated"), (int, float))
        return content if known else None

    def running(self) -> dict[str, dict[str, Any]]:
        """Signature -> last report, of the runs that a living process trains."""
        return {name: self.progress(name) or {} for name in self._in_work() if self.is_claimed(name)}

    def ask_to_stop(self, signature: str) -> None:
        """Ask the process that trains this run to save and end after the epoch."""
        with contextlib.suppress(OSError):
            (self.folder / "partial" / signature / STOP).touch()

    def finish(
        self,
        signature: str,
        record: dict[str, Any],
        history: list[dict[str, Any]],
        weights: bool,
        correct: np.ndarray | None = None,
    ) -> None:
        """Put a run among the finished ones, with the weights that lie in its partial folder if it has any, and with
        which test images it got right, bool (N,).

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
        if correct is not None:
            import numpy as np

            _write_bytes(whole / CORRECT, np.packbits(correct).tobytes())
        files = {path.name: {"bytes": path.stat().st_size, "sha256": _digest(path)} for path in whole.iterdir()}
        kept = files.pop(CORRECT, None)
        content = {"format": FORMAT, "signature": signature, "files": files, **record, "correct": kept}
        write_text(whole / RECORD, json.dumps(content) + "\n")
        self._publish(signature)

    def adopt(self, signature: str, files: dict[str, bytes]) -> None:
        """Put a run among the finished ones that was made elsewhere: the files of its folder, by name.

        Only the process that has claimed the run may do so. A record that was there is replaced.
        """
        whole = self.partial(signature) / "whole"
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir()
        for name in (name for name in (HISTORY, WEIGHTS, CORRECT, RECORD) if name in files):
            _write_bytes(whole / name, files[name])
        self._publish(signature)

    def recover(self, signature: str) -> None:
        """Put a run that was complete when its process died among the finished ones. The caller must hold the claim."""
        if (self.folder / "partial" / signature / "whole" / RECORD).is_file():
            self._publish(signature)

    def _publish(self, signature: str) -> None:
        partial = self.folder / "partial" / signature
        self._set_aside(self.path(signature))
        (partial / "whole").rename(self.path(signature))
        _sync(self.folder / "runs")
        if self.settled(signature):
            shutil.rmtree(partial, ignore_errors=True)
            self._unlock(signature)

    def _set_aside(self, path: Path) -> None:
        if os.path.lexists(path):
            away = aside(self.folder / "partial" / path.name)
            path.rename(away)
            _delete(away)

    def _unlock(self, signature: str) -> None:
        """Remove a lock's file. A waiting process finds its file unlinked, and looks at the run again."""
        (self.folder / "locks" / signature).unlink(missing_ok=True)

    def _has_work(self, signature: str) -> bool:
        return os.path.lexists(self.folder / "partial" / signature)

    def _in_work(self) -> list[str]:
        with contextlib.suppress(OSError):
            return _signatures_in(self.folder / "partial")
        return []

    # --- housekeeping ---

    def garbage(self) -> list[Path]:
        """What no run needs: folders set aside, temporary files and data of processes that are gone, spare locks."""
        found = _forgotten(self.folder) + _forgotten(self.folder / "partial")
        for signature in self._in_work():
            folder = self.folder / "partial" / signature
            if not self.is_claimed(signature):
                found += [folder] if self._is_settled(signature) else _forgotten(folder)
        in_work = set(self._in_work())
        found += [
            path
            for path in _listed(self.folder / "locks")
            if _is_signature(path.name) and path.name not in in_work and not self.is_claimed(path.name)
        ]
        return sorted(found)

    def discard(self, path: Path) -> bool:
        """Remove a piece of `garbage`, unless a process has claimed its run by now."""
        parts = path.relative_to(self.folder).parts
        signature = next((part for part in parts if _is_signature(part)), None)
        if signature is None:
            _delete(path)
            return True
        with self.claim(signature) as mine:
            if mine:
                _delete(path)
                if not (self.folder / "partial" / signature).exists():
                    self._unlock(signature)
            return mine

    def _is_settled(self, signature: str) -> bool:
        """Whether a run needs nothing of its work any more."""
        with contextlib.suppress(RoadmapError):
            return self.settled(signature) is not None
        return False


class DamagedError(RoadmapError):
    """A finished run lost a part."""


def files_of(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The files of a run beside its record, by name. Versions that know nothing of `CORRECT` refuse it in ``files``."""
    correct = record["correct"]
    return record["files"] if correct is None else {**record["files"], CORRECT: correct}


def is_settled(record: dict[str, Any] | None) -> bool:
    """Whether a record says that its run need not be trained: it is done, or would fail again."""
    return record is not None and not record["result"]["retry"]


def store_at(folder: str | os.PathLike | None = None) -> Store:
    """The store in a folder, by default that of ``$ROADMAP_STORE``, else results/store."""
    return Store(folder or os.environ.get("ROADMAP_STORE") or DEFAULT_STORE)


def row_of(record: dict[str, Any]) -> dict[str, Any]:
    """A record as one flat mapping of `COLUMNS`; names in a list are joined by +."""
    row = {column: record[part][column] for column, part in COLUMNS.items()}
    return {column: "+".join(value) if isinstance(value, (list, tuple)) else value for column, value in row.items()}


def disk_bytes(path: str | Path) -> int:
    """Bytes of a file, or of all files under a folder; links are not followed, and what vanishes counts nothing."""
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            return os.lstat(path).st_size
        with os.scandir(path) as entries:
            return sum(
                disk_bytes(entry.path)
                if entry.is_dir(follow_symlinks=False)
                else entry.stat(follow_symlinks=False).st_size
                for entry in entries
            )
    except OSError:
        return 0


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


def _is_signature(name: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{16}", name) is not None


def _signatures_in(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if _is_signature(entry.name))


def _listed(folder: Path) -> list[Path]:
    """What is in a folder; nothing where it has gone."""
    with contextlib.suppress(OSError):
        return list(folder.iterdir())
    return []


def _forgotten(folder: Path) -> list[Path]:
    """What a process of this package left over in a folder, long ago, under a name such as ``.run.json.4711``."""
    long_ago = time.time() - _FORGOTTEN
    found = []
    for path in _listed(folder):
        with contextlib.suppress(OSError):
            if re.fullmatch(r"\..+\.[0-9]+", path.name) and path.lstat().st_mtime < long_ago:
                found.append(path)
    return found


def _delete(path: Path) -> None:
    """Remove a file, a link (and not what it points to) or a folder; whatever cannot be removed stays."""
    if path.is_symlink() or not path.is_dir():
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _shared(descriptor: int) -> bool:
    """Whether nobody has locked this file for itself."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_bytes(path: Path, content: bytes) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


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
