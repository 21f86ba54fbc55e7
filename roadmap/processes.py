"""Clean processes to work in: started from one that has imported the slow libraries once and done nothing else."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from roadmap.checks import RoadmapError

#: What workers leave to the process that they work for: when it ends, they do.
SIGNALS = (signal.SIGINT, signal.SIGTERM)

Result = TypeVar("Result")

#: What a fresh process has imported before it is forked.
PRELOAD = [
    "roadmap.training.fit",
    "roadmap.study.work",
    "roadmap.network.weights",
    "roadmap.data.shared",
    "roadmap.cost.counting",
]


def prepare_processes() -> Any:
    """The multiprocessing context of clean processes; where the system can, its server begins to import now.

    Metal does not work in a process that was forked: on Apple's systems every process is started anew.
    """
    if sys.platform == "darwin" or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    from multiprocessing.forkserver import ensure_running

    # Ctrl-C and a request to end reach every process of a group; what they mean is the first one's to say.
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS} if main else {}
    try:
        with without_main():
            ensure_running()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return context


class ProcessDiedError(RoadmapError):
    """A process was ended before it could answer."""


def in_clean_process(work: Callable[..., Result], *arguments: Any) -> Result:
    """What ``work`` returns, or raises, in a process of its own; `ProcessDiedError` where that process died."""
    context = prepare_processes()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, work, arguments), daemon=True)
    try:
        with without_main():
            process.start()
        theirs.close()
        answer = ours.recv()
    except (EOFError, ConnectionError):
        raise ProcessDiedError("a process that worked for this one was ended from outside: start again") from None
    finally:
        if process.pid:
            process.join()
        ours.close()
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _answer(pipe: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        answer = work(*arguments)
    except Exception as error:
        answer = error
    with contextlib.suppress(BrokenPipeError):  # nobody waits any more
        pipe.send(answer)


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


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes with one thread within, for work so small that on a busy machine several wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
