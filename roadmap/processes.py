"""Clean processes to work in: started from one that has imported the slow libraries once and done nothing else."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

#: What a fresh process has imported before it is forked.
PRELOAD = ["roadmap.training.fit", "roadmap.study.work", "roadmap.network.weights", "roadmap.data.shared"]


def prepare_processes() -> Any:
    """The multiprocessing context of clean processes; where the system can, its server begins to import now."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    from multiprocessing.forkserver import ensure_running

    # Ctrl-C reaches every process of the terminal; what it means is the first one's to say.
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        with without_main():
            ensure_running()
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
    return context


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Processes that start here need nothing of the user's script, and must not run it again."""
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {
        name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__
    }
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update(hidden)
