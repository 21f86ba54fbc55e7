"""Clean processes to work in: started from one that has imported the slow libraries once and done nothing else."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from multiprocessing import util
from pathlib import Path
from typing import Any, TypeVar

from roadmap.checks import RoadmapError
from roadmap.files import temporary_folder
from roadmap.imports import import_path

#: What workers leave to the process that they work for: when it ends, they do.
SIGNALS = (signal.SIGINT, signal.SIGTERM)

Result = TypeVar("Result")

#: What a fresh process has imported before it is forked.
PRELOAD = ["roadmap.running.preload"]

#: Bytes that a system lets the path of a socket have at least (macOS), and of the names that multiprocessing adds.
_SOCKET_PATH, _SOCKET_NAME = 103, len("/pymp-12345678/listener-12345678")
#: Where temporary files may be, too, under a short path.
_SHORT_FOLDERS = ("/tmp", "/var/tmp")
#: Held by who changes what this process hands to those that it starts.
_starting = threading.RLock()


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
        prepare_sockets()
        # Only from 3.11 on Python can be told to leave the working directory out.
        with clean_start(elsewhere=sys.version_info < (3, 11)):
            ensure_running()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return context


def start(process: Any) -> None:
    """Start a process of the context of `prepare_processes`."""
    prepare_processes()  # its server may have died
    with clean_start():
        process.start()


class ProcessDiedError(RoadmapError):
    """A process was ended before it could answer."""


def in_clean_process(work: Callable[..., Result], *arguments: Any) -> Result:
    """What ``work`` returns, or raises, in a process of its own; `ProcessDiedError` where that process died."""
    context = prepare_processes()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, work, arguments), daemon=True)
    try:
        start(process)
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
def clean_start(elsewhere: bool = False) -> Iterator[None]:
    """Python processes that start here, by whatever means, import what this one does and nothing else from the working
    directory (`import_path`). They need nothing of the user's script, and must not run it again.

    ``elsewhere``: they start in the folder of Python's own modules, which may be put before all others.
    """
    with _starting:
        main, path, folder = sys.modules["__main__"], sys.path[:], Path.cwd() if elsewhere else None
        hidden: dict[str, Any] = {
            name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__
        }
        clean = import_path()
        told = {"PYTHONPATH": os.pathsep.join(clean), "PYTHONSAFEPATH": "1"}
        before = {name: os.environ.get(name) for name in told}
        try:
            main.__spec__ = None
            sys.path[:] = clean
            os.environ.update(told)
            if folder:
                os.chdir(Path(os.__file__).parent)
            yield
        finally:
            if folder:
                os.chdir(folder)
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
            sys.path[:] = path
            main.__dict__.update(hidden)


def prepare_sockets() -> None:
    """Let multiprocessing put its sockets where their paths are short enough, however long that of ``TMPDIR`` is."""
    with _starting:
        before, tempfile.tempdir = tempfile.tempdir, short_folder(_SOCKET_PATH - _SOCKET_NAME)
        try:
            util.get_temp_dir()  # kept, and handed to the processes that this one starts
        finally:
            tempfile.tempdir = before


def short_folder(longest: int) -> str:
    """The folder of temporary files, or another if its path is longer than ``longest`` bytes. Raises `RoadmapError`."""
    folder = temporary_folder()
    for other in (folder, *_SHORT_FOLDERS):
        if len(os.fsencode(other)) <= longest and os.access(other, os.W_OK | os.X_OK):
            return other
    raise RoadmapError(f"the folder of temporary files, {folder}, has too long a path: TMPDIR names another")


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
