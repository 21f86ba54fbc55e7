"""The questions that a study can ask, each a class in a file of its own: see `roadmap.questions.question`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, get_origin

from roadmap.checks import check_choice
from roadmap.found import modules_of
from roadmap.questions.question import Question
from roadmap.settings import Setting, settings_in


@cache
def questions() -> dict[str, type[Question]]:
    """Name -> class of every question in this package, in the order of their ``rank``."""
    found: dict[str, type[Question]] = {}
    for module in modules_of(__name__):
        for thing in vars(module).values():
            is_class = isinstance(thing, type) and get_origin(thing) is None  # Python 3.10 takes list[int] for a type
            if is_class and issubclass(thing, Question) and "name" in vars(thing):
                found[thing.name] = thing
    return dict(sorted(found.items(), key=lambda item: (item[1].rank, item[0])))


def question_named(name: str) -> type[Question]:
    """The question of that name. Raises `RoadmapError` for one that does not exist."""
    check_choice("design", name, tuple(questions()))
    return questions()[name]


def default_question() -> type[Question]:
    """What a study asks that does not say."""
    return next(iter(questions().values()))


@cache
def question_settings() -> dict[str, Setting]:
    """Name -> setting of every question."""
    return {name: one for question in questions().values() for name, one in settings_in(question).items()}


def owners_of(name: str) -> list[str]:
    """The questions that have this setting."""
    return [question.name for question in questions().values() if name in settings_in(question)]


def asked_question(design: str | None, settings: Mapping[str, Any]) -> type[Question]:
    """The question named ``design``, else that which one of the given ``settings`` implies, else the default one."""
    if design is not None:
        return question_named(design)
    implied = [name for name in settings if question_settings()[name].implies]
    return question_named(owners_of(implied[0])[0]) if implied else default_question()
