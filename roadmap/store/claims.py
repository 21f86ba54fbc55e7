"""Runs in work: which process has a run to itself, how far it is, and how it is asked to stop."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from roadmap.files import aside
from roadmap.store.records import PROGRESS, STOP, Records, signatures_in

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: Seconds between two reports of a running run to its progress.json.
PROGRESS_INTERVAL = 0.5


class Claims(Records):
    """A folder of runs, those in work included: each belongs to the process that holds its lock (flock), which the
    system frees however that process ends."""

    def folders(self, signature: str) -> tuple[Path, Path]:
        """Where a run is when it is finished and while it is in work; there may be either, both or none."""
        return self.path(signature), self.folder / "partial" / signature

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

    def _has_work(self, signature: str) -> bool:
        return os.path.lexists(self.folder / "partial" / signature)

    def _in_work(self) -> list[str]:
        with contextlib.suppress(OSError):
            return signatures_in(self.folder / "partial")
        return []

    def _unlock(self, signature: str) -> None:
        """Remove a lock's file. A waiting process finds its file unlinked, and looks at the run again."""
        (self.folder / "locks" / signature).unlink(missing_ok=True)


def _shared(descriptor: int) -> bool:
    """Whether nobody has locked this file for itself."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
