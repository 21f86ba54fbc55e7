"""What networks are trained to do, each task a value in a file of its own: see `roadmap.tasks.task`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from roadmap.checks import RoadmapError, check_choice, said
from roadmap.found import modules_of
from roadmap.tasks.task import Task


@cache
def tasks() -> dict[str, Task]:
    """Name -> every task in this package, in the order of their ``rank``."""
    found = {
        thing.name: thing
        for module in modules_of(__name__)
        for thing in vars(module).values()
        if isinstance(thing, Task)
    }
    return dict(sorted(found.items(), key=lambda item: (item[1].rank, item[0])))


def task_named(name: str) -> Task:
    """The task of that name. Raises `RoadmapError` for one that does not exist."""
    check_choice("task", name, tuple(tasks()))
    return tasks()[name]


def default_task() -> Task:
    """What a study trains for that does not say."""
    return next(iter(tasks().values()))


def heads_text() -> str:
    """The heads of every task, for the help."""
    return "; ".join(f"{task.name}: {', '.join(task.heads)}" for task in tasks().values() if task.heads)


def data_text() -> str:
    """The data sets of every task, for the help."""
    first, *others = tasks().values()
    *names, last = first.data()
    more = [f"; with --task {task.name}: {', '.join(task.data())}" for task in others]
    return f"{', '.join(names)}, or {last} for one from Hugging Face{''.join(more)}"


def parse_head_settings(value: Any) -> dict[str, Any]:
    """Settings of a head by name, from themselves or from text such as ``channels=24,norm=none``. Raises
    `RoadmapError`."""
    if isinstance(value, Mapping):
        return {str(name): one for name, one in value.items()}
    pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()] if isinstance(value, str) else []
    if (value and not pairs) or not all(name.strip() and one for name, _, one in pairs):
        raise RoadmapError(f"head_settings is {said(value)}, but must be like channels=24,norm=none")
    return {name.strip(): one.strip() for name, _, one in pairs}


def check_default(task: Task, what: str, name: str) -> None:
    """Raise `RoadmapError` unless ``name`` is of the task that ``what`` is for alone, the default one."""
    usual = default_task()
    if task is not usual:
        raise RoadmapError(f"{what} is for {usual.title}, but {name} is of {task.title}")
