"""What slow work is doing, said at once: a line on standard error, a bar in a notebook, or to nobody."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from roadmap.markup import printable

#: Seconds after which a phase is worth a line where lines stay, as in a file.
DELAY = 0.4

#: Is told what is being done, from the whole to its parts; nothing when it is over.
Listener = Callable[[list[str]], None]

_listener: Listener | None = None
_doing: list[str] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have ``listener`` told of every `phase` within."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


@contextmanager
def phase(text: str) -> Iterator[None]:
    """Tell the listener that this is being done, such as "reading the data", until the body ends. The body prints
    nothing. A phase within another is a part of it."""
    _doing.append(text)
    try:
        _tell()
        yield
    finally:
        _doing.pop()
        _tell()


def _tell() -> None:
    if _listener is not None:
        _listener(_doing)


class StatusLine:
    """Shows phases on standard error: on a terminal in one line, which is gone when they end; in a file or pipe those
    that take longer than `DELAY`, once each and without their parts; not where a program keeps the text in memory."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._timer: threading.Timer | None = None

    def __call__(self, doing: list[str]) -> None:
        if not _has_file(sys.stderr):
            return
        if sys.stderr.isatty():
            words = f"{printable(doing[-1])}…"[: _columns() - 1] if doing else ""
            sys.stderr.write(f"\r\033[K{words}")
            sys.stderr.flush()
        elif self._timer is not None and not doing:
            self._timer.cancel()
            self._timer = None
        elif len(doing) == 1 and self._timer is None and doing[0] not in self._told:
            self._timer = threading.Timer(DELAY, self._write, [doing[0]])
            self._timer.daemon = True
            self._timer.start()

    def _write(self, text: str) -> None:
        self._told.add(text)
        print(f"{text}…", file=sys.stderr, flush=True)


def _has_file(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.fileno() >= 0
    except (OSError, ValueError):
        return False


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80
