"""The one error type for what a user can get wrong, and the checks that raise it."""

from __future__ import annotations

import difflib
import errno
import json
import math
import re
from collections.abc import Iterable
from typing import Any, TypeVar

Name = TypeVar("Name", str, int)


class RoadmapError(ValueError):
    """Something a user typed or pointed at cannot work. The message is one sentence, fit to be shown alone."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows of it in a notebook: the sentence, and no traceback."""
        return [f"{type(self).__name__}: {self}"]


#: What the operating system reports -> the cause in words.
_CAUSES = {
    errno.ENOENT: "it does not exist",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the disk is read-only",
    errno.EISDIR: "it is a folder, not a file",
    errno.ENOTDIR: "part of the path is a file, not a folder",
    errno.EEXIST: "it exists already",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.ELOOP: "its links lead in a circle",
}


def cause(error: Exception) -> str:
    """Why a file or folder could not be used, in words, without its name: of an `OSError`, or of text that is not
    UTF-8 or not JSON."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not valid JSON (line {error.lineno})"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        known = _CAUSES.get(error.errno or 0)
        return known or f"{error.strerror[0].lower()}{error.strerror[1:]}"
    return " ".join(str(error).split()) or type(error).__name__


def said(value: Any) -> str:
    """A value as a message quotes it: what is not there is called empty, not by Python's word for it."""
    return repr(value) if isinstance(value, str) else re.sub(r"\bNone\b", "empty", repr(value))


def nearest(word: str, known: Iterable[str]) -> str:
    """``" (did you mean 'gelu'?)"`` for the known word closest to ``word``, or nothing."""
    match = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise `RoadmapError` unless ``value`` is one of ``choices``, of the same type."""
    choices = list(choices)
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        listed = ", ".join(str(choice) for choice in choices)
        raise RoadmapError(f"{name} is {said(value)}, but must be one of {listed}{nearest(value, map(str, choices))}")


def check_known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise `RoadmapError` for the first of ``names`` that is not in ``known``, with the nearest one."""
    known = list(known)
    for name in names:
        if name not in known:
            raise RoadmapError(f"unknown {what} '{name}'{nearest(name, known)}; known: {', '.join(known)}")


def repeated(names: Iterable[Name]) -> Name | None:
    """The first name, or number, that comes a second time, if one does."""
    seen: set[Name] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def check_int(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Raise `RoadmapError` unless ``value`` is a whole number within [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise RoadmapError(f"{name} is {said(value)}, but must be a whole number")
    _check_range(name, value, low, high)


def check_number(name: str, value: Any, low: float, high: float | None = None) -> None:
    """Raise `RoadmapError` unless ``value`` is a finite number within [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise RoadmapError(f"{name} is {said(value)}, but must be a finite number")
    _check_range(name, value, low, high)


def check_bool(name: str, value: Any) -> None:
    """Raise `RoadmapError` unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise RoadmapError(f"{name} is {said(value)}, but must be true or false")


def check_text(name: str, value: Any) -> None:
    """Raise `RoadmapError` unless ``value`` is text, and not empty."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise RoadmapError(f"{name} is {said(value)}, but must be text")


def _check_range(name: str, value: float, low: float, high: float | None) -> None:
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"between {low} and {high}"
        raise RoadmapError(f"{name} is {value}, but must be {bounds}")
