"""Levels of flags: from what was typed or stands in a YAML file to steps."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import yaml

from roadmap.checks import RoadmapError, check_known
from roadmap.ladders.steps import FLAGS, TRAINING, Step
from roadmap.recipes.recipe import SETTINGS


def parse_levels(value: Any) -> dict[str, tuple[Any, ...]]:
    """Flag -> its levels, from a mapping or from texts such as ``kernel_size=3,5,7``."""
    if not isinstance(value, Mapping):
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            raise RoadmapError(f"sweep is {value!r}, but must be flags with their levels, such as kernel_size: [3, 5]")
        value = {}
        for text in texts:
            flag, equals, listed = text.partition("=")
            words = [word.strip() for word in listed.split(",") if word.strip()]
            if not equals or not words:
                raise RoadmapError(f"sweep is '{text}', but must be like kernel_size=3,5,7")
            if flag.strip() in value:
                raise RoadmapError(f"sweep names {flag.strip()} twice: give all of its levels at once")
            value[flag.strip()] = [_level_from_text(flag.strip(), word) for word in words]
    for flag, levels in value.items():
        check_known("flag to sweep", [flag], [*FLAGS, "recipe", *TRAINING])
        if not isinstance(levels, (list, tuple)) or not levels:
            raise RoadmapError(f"sweep of {flag} is {levels!r}, but must be a list of its levels")
    return {flag: tuple(levels) for flag, levels in value.items()}


def _level_from_text(flag: str, word: str) -> Any:
    if flag in ("blocks", "widths"):
        parts = word.split("-")
        if not all(part.isdigit() for part in parts):
            raise RoadmapError(f"a level of {flag} is '{word}', but must be like 3-3-9-3")
        return [int(part) for part in parts]
    if flag in SETTINGS:
        return SETTINGS[flag].from_text(word.replace(":", ","))
    if flag == "layers":
        return [] if word == "none" else word.split("+")
    try:
        value = yaml.safe_load(word)
    except yaml.YAMLError:
        value = word
    return None if value == "none" else value


def level_of(flag: str, value: Any) -> Step:
    """The step that sets a flag to this level, called ``flag=level``."""
    made = Step.from_mapping({"name": flag, flag: value})
    parsed = {**made.changes, **made.training, "recipe": made.recipe}[flag]
    shown = "-".join(map(str, parsed)) if isinstance(parsed, (list, tuple)) else str(parsed).lower()
    shown = re.sub(r"[^\w.]+", "-", shown.replace("{}", "")).strip("-") or "none"
    return dataclasses.replace(made, name=f"{flag}={shown}")
