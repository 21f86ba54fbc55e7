"""The one error type for what a user can get wrong, and the checks that raise it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any


class RoadmapError(ValueError):
    """Something a user typed or pointed at cannot work. The message is one sentence, fit to be shown alone."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``" (did you mean 'gelu'?)"`` for the known word closest to ``word``, or nothing."""
    match = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise `RoadmapError` unless ``value`` is one of ``choices``, of the same type."""
    choices = list(choices)
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        listed = ", ".join(str(choice) for choice in choices)
        raise RoadmapError(f"{name} is {value!r}, but must be one of {listed}{nearest(value, map(str, choices))}")


def check_known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise `RoadmapError` for the first of ``names`` that is not in ``known``, with the nearest one."""
    known = list(known)
    for name in names:
        if name not in known:
            raise RoadmapError(f"unknown {what} '{name}'{nearest(name, known)}; known: {', '.join(known)}")


def repeated(names: Iterable[str]) -> str | None:
    """The first name that comes a second time, if one does."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def check_int(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Raise `RoadmapError` unless ``value`` is a whole number within [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise RoadmapError(f"{name} is {value!r}, but must be a whole number")
    _check_range(name, value, low, high)


def check_number(name: str, value: Any, low: float, high: float | None = None) -> None:
    """Raise `RoadmapError` unless ``value`` is a finite number within [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise RoadmapError(f"{name} is {value!r}, but must be a finite number")
    _check_range(name, value, low, high)


def check_bool(name: str, value: Any) -> None:
    """Raise `RoadmapError` unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise RoadmapError(f"{name} is {value!r}, but must be true or false")


def check_text(name: str, value: Any) -> None:
    """Raise `RoadmapError` unless ``value`` is text, and not empty."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise RoadmapError(f"{name} is {value!r}, but must be text")


def _check_range(name: str, value: float, low: float, high: float | None) -> None:
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"between {low} and {high}"
        raise RoadmapError(f"{name} is {value}, but must be {bounds}")
