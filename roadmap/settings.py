"""Settings: fields of a dataclass that are at once keys of a YAML file, options of the command line, and their help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, field
from typing import Any

from roadmap.checks import RoadmapError


def setting(help: str, default: Any = None, **metadata: Any) -> Any:
    """A field with its help; ``metadata`` may hold ``choices`` or a ``metavar``."""
    return field(default=default, metadata={"help": help, **metadata})


def kind_of(setting: Field) -> type:
    """What one value is: bool, int, float or str."""
    words = str(setting.type)
    return next((kind for kind in (bool, int, float) if kind.__name__ in words), str)


def from_text(setting: Field, text: str) -> Any:
    """A setting's value from what was typed: ``none`` where nothing is a value, too, and lists separated by commas."""
    kind, words = kind_of(setting), str(setting.type)
    if text.lower() == "none" and "None" in words:
        return None
    try:
        return tuple(kind(part) for part in text.split(",")) if "tuple" in words else kind(text)
    except ValueError:
        what = {int: "a whole number", float: "a number"}[kind]
        listed = f"a list such as 0.9,0.999, each {what}" if "tuple" in words else what
        raise RoadmapError(f"{setting.name} is '{text}', but must be {listed}") from None


def from_yaml(setting: Field, value: Any) -> Any:
    """A setting's value from YAML 1.1, which takes none and 4e-3, as people write them, for text, and wants null and
    4.0e-3."""
    if value == "none" and "None" in str(setting.type):
        return None
    written = isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", value)
    return float(value) if written and kind_of(setting) is float else value


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
