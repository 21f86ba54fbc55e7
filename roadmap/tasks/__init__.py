"""What networks are trained to do, each task a value in a file of its own: see `roadmap.tasks.task`."""

from __future__ import annotations

from functools import cache

from roadmap.checks import check_choice
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
