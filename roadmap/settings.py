"""Settings: fields of a dataclass that are at once keys of a YAML file, options of the command line, and their help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from roadmap.checks import RoadmapError, check_bool, check_choice, check_int, check_number, check_text, plain, said


def setting(help: str = "", default: Any = None, **facts: Any) -> Any:
    """A field with its help and any of the facts of a `Setting`. One without help is no option: a study sets it by
    other means."""
    return field(default=default, metadata={"help": help, **facts})


@dataclass(frozen=True)
class Setting:
    """One setting: what it may be, and the words for it.

    ``kind`` is that of one value (bool, int, float, str); ``length`` how many there are, 0 for any number, None for a
    plain value; ``optional`` whether it may be none, ``named`` whether a mapping may give several by name. A value is
    within [``low``, ``high``], ``above`` and ``below`` bounds that it must not reach, or one of ``choices``. ``part``
    of the help that shows it, ``metavar`` and ``repeat``: whether its option can be given several times. ``implies``:
    giving it asks its question.
    """

    name: str
    kind: type
    length: int | None
    optional: bool
    named: bool
    default: Any
    help: str = ""
    choices: tuple[Any, ...] = ()
    low: float = float("-inf")
    high: float | None = None
    above: float | None = None
    below: float | None = None
    part: str = ""
    metavar: str = ""
    repeat: bool = False
    implies: bool = False

    def check(self, value: Any) -> Any:
        """The value as it is kept: `plain`, several as a tuple. Raises `RoadmapError` for one that cannot be."""
        value = plain(value)
        if value is None and self.optional:
            return None
        if self.named and isinstance(value, dict):
            return {key: None if one is None else self._check(one) for key, one in value.items()}
        if self.length is None:
            return self._check(value)
        if not isinstance(value, (list, tuple)) or len(value) != (self.length or len(value)):
            what = f"{self.length} numbers" if self.length else f"a list, such as {self.metavar}"
            raise RoadmapError(f"{self.name} is {said(value)}, but must be {what}")
        return tuple(map(self._check, value))

    def _check(self, value: Any) -> Any:
        if self.kind is str and isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)  # as YAML and Python have what is meant as text
        if self.choices:
            return check_choice(self.name, value, self.choices)
        if self.kind is bool:
            return check_bool(self.name, value)
        if self.kind is str:
            return check_text(self.name, value)
        check: Callable[..., float] = check_int if self.kind is int else check_number
        check(self.name, value, self.low, self.high)
        if (self.above is not None and value <= self.above) or (self.below is not None and value >= self.below):
            bound = f"below {self.below:g}" if self.above is None else f"above {self.above:g}"
            raise RoadmapError(f"{self.name} is {value}, but must be {bound}")
        return value

    def from_text(self, text: str) -> Any:
        """The value from what was typed: ``none`` where it may be none, several separated by commas."""
        if text.lower() == "none" and self.optional:
            return None
        try:
            return self.kind(text) if self.length is None else tuple(map(self.kind, text.split(",")))
        except ValueError:
            what = {int: "a whole number", float: "a number"}[self.kind]
            listed = what if self.length is None else f"a list such as 0.9,0.999, each {what}"
            raise RoadmapError(f"{self.name} is '{text}', but must be {listed}") from None

    def from_yaml(self, value: Any) -> Any:
        """The value from YAML 1.1, which takes none and 4e-3, as people write them, for text, and wants null and
        4.0e-3."""
        if value == "none" and self.optional:
            return None
        written = isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", value)
        return float(value) if written and self.kind is float else value


@cache
def settings_in(owner: Any) -> dict[str, Setting]:
    """Name -> setting of every field of a dataclass."""
    hints = get_type_hints(owner)
    return {
        one.name: Setting(one.name.rstrip("_"), *_kind(hints[one.name]), _default(one), **one.metadata)
        for one in fields(owner)
    }


def _default(one: Any) -> Any:
    return None if one.default is MISSING else one.default


def _kind(hint: Any) -> tuple[type, int | None, bool, bool]:
    """Kind of one value, how many there are, whether there may be none, and whether they may be named."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    one = next(part for part in parts if part is not NoneType)
    length = None
    if get_origin(one) is tuple:
        several = get_args(one)
        one, length = several[0], 0 if ... in several else len(several)
    kind = one if one in (bool, int, float) else str
    return kind, length, NoneType in parts, any(get_origin(part) is dict for part in parts)


def check_settings(value: Any, names: Iterable[str] = ()) -> None:
    """Check these fields of a frozen dataclass that is being made, by default all, and keep them plain. Raises
    `RoadmapError` with one sentence for the first that cannot be."""
    own = settings_in(value.__class__)
    for name in names or own:
        object.__setattr__(value, name, own[name].check(getattr(value, name)))


def show_keywords(function: Callable[..., Any], keywords: Mapping[str, tuple[str, Any]]) -> None:
    """Have a function that takes any keywords show these, name -> (type, default), in its signature: ``...`` as default
    where that is decided elsewhere."""
    own = inspect.signature(function)
    named = [one for one in own.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in keywords.items()
    ]
    function.__signature__ = own.replace(parameters=[*named, *more])  # type: ignore[attr-defined]
