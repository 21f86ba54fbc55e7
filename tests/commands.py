"""The command line, in this process, which has imported everything already, or in one of its own."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

from filelock import FileLock

from roadmap import cli


def once(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that ``make`` fills, once for all test processes, which only read it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / name
    with FileLock(root / f"{name}.lock"):
        if not (root / f"{name}.made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (root / f"{name}.made").touch()
    return folder


class Shown(NamedTuple):
    code: int
    out: str
    err: str


def call(*words, cwd=None, err: IO[str] | None = None) -> Shown:
    """What a command prints and its exit code. ``err``: a file for standard error, where slow phases are told."""
    before, argv, out, err = Path.cwd(), sys.argv, io.StringIO(), err or io.StringIO()
    sys.argv, code = ["roadmap", *map(str, words)], 0
    os.chdir(cwd or before)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    finally:
        sys.argv = argv
        os.chdir(before)
    err.seek(0)
    return Shown(code, out.getvalue(), err.read())


def start(*words, cwd=None, **options) -> subprocess.Popen:
    """A command in a process, and a session, of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "roadmap", *map(str, words)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, **options,
    )  # fmt: skip


def end(process: subprocess.Popen) -> Shown:
    """What a started command printed, when it has ended."""
    out, err = process.communicate(timeout=400)
    return Shown(process.returncode, out, err)


@contextlib.contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """``work`` beside the body, in a thread; what it raises is raised at the end."""
    with ThreadPoolExecutor() as pool:
        future = pool.submit(work)
        yield
        future.result()


def without_phases(errors: str) -> list[str]:
    """The lines on standard error, but not those that say what a slow command is doing."""
    return [line for line in errors.splitlines() if not line.endswith("…")]


def one_sentence(errors: str) -> bool:
    """Whether a command said one sentence; a plan's warnings, and what it was doing, may stand before it."""
    lines = [line for line in without_phases(errors) if not line.startswith("warning: ")]
    return len(lines) == 1 and lines[0].startswith("roadmap: ")
