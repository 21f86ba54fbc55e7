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
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.checks import RoadmapError, cause
from roadmap.files import STORE_MARK as MARK
from roadmap.files import aside, whole_file, write_text
from roadmap.store.claims import Claims
from roadmap.store.housekeeping import delete, forgotten, listed
from roadmap.store.records import (
    CORRECT,
    DEFAULT_STORE,
    FORMAT,
    HISTORY,
    MEASURED,
    RECORD,
    WEIGHTS,
    DamagedError,
    Entry,
    check_signature,
    csv_text,
    digest,
    is_signature,
    read_json,
)

if TYPE_CHECKING:
    import numpy as np

#: Seconds to wait for a run that is to be removed: others hold it for a moment to see whether it is free.
_PATIENCE = 0.2


class Store(Claims):
    """A folder of runs. Reading never changes it; any number of processes may read and write at once."""

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
        delete(self.folder / "partial" / signature)
        self._unlock(signature)

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
        files = {path.name: {"bytes": path.stat().st_size, "sha256": digest(path)} for path in whole.iterdir()}
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
            delete(away)

    def garbage(self) -> list[Path]:
        """What no run needs: folders set aside, temporary files and data of processes that are gone, spare locks."""
        found = forgotten(self.folder) + forgotten(self.folder / "partial")
        for signature in self._in_work():
            folder = self.folder / "partial" / signature
            if not self.is_claimed(signature):
                found += [folder] if self._is_settled(signature) else forgotten(folder)
        in_work = set(self._in_work())
        found += [
            path
            for path in listed(self.folder / "locks")
            if is_signature(path.name) and path.name not in in_work and not self.is_claimed(path.name)
        ]
        return sorted(found)

    def discard(self, path: Path) -> bool:
        """Remove a piece of `garbage`, unless a process has claimed its run by now."""
        parts = path.relative_to(self.folder).parts
        signature = next((part for part in parts if is_signature(part)), None)
        if signature is None:
            delete(path)
            return True
        with self.claim(signature) as mine:
            if mine:
                delete(path)
                if not (self.folder / "partial" / signature).exists():
                    self._unlock(signature)
            return mine

    def _is_settled(self, signature: str) -> bool:
        """Whether a run needs nothing of its work any more."""
        with contextlib.suppress(RoadmapError):
            return self.settled(signature) is not None
        return False


def store_at(folder: str | os.PathLike | None = None) -> Store:
    """The store in a folder, by default that of ``$ROADMAP_STORE``, else results/store."""
    return Store(folder or os.environ.get("ROADMAP_STORE") or DEFAULT_STORE)


def _write_bytes(path: Path, content: bytes) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def _sync(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
