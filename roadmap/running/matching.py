"""The networks of a study rescaled to the cost of its start."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from roadmap.checks import RoadmapError
from roadmap.cost.matching import Matched, Timing, counted, match, match_time
from roadmap.network.design import Design
from roadmap.network.layers import load_plugins
from roadmap.planning.spec import StudySpec
from roadmap.processes import in_clean_process
from roadmap.store.store import Store
from roadmap.training.spec import Execution

#: Images of a step that is timed for a match, unless the recipe's batches are smaller.
TIMED_BATCH = 32


def rescale(
    spec: StudySpec,
    store: Store,
    image_size: int,
    batch_size: int,
    designs: Sequence[Design],
    target: Design,
    head: Any = None,
) -> list[Matched]:
    """Each design with the cost of ``target``, in what the study matches, both with the ``head`` of the study's task;
    images have ``image_size`` pixels.

    Times are measured here, in batches of up to ``batch_size``, and kept in the store, so that the same study finds the
    same networks again. Raises `RoadmapError` where a network cannot be brought near.
    """
    if spec.match != "time":
        return in_clean_process(_by_counting, spec, image_size, designs, target, head)
    if head is not None:
        raise RoadmapError(f"--match time times classifiers, but the task is {spec.task}: match gmacs or params")
    if spec.engine != "local":
        raise RoadmapError(f"--match time measures this machine, but the engine is {spec.engine}")
    store.begin()
    device, name = in_clean_process(_device, spec.execution, spec.precision)
    before = {key: fact["time"] for key, fact in store.measured().items() if "time" in fact}
    times = dict(before)
    timing = Timing(image_size, min(batch_size, TIMED_BATCH), device, name, spec.threads, times)
    try:
        seconds = timing.seconds(target)
        return _all(designs, partial(match_time, target=seconds, timing=timing, by=spec.match_by))
    finally:
        if times != before:
            found = {key: {"time": value} for key, value in times.items() if key not in before}
            store.keep_measured(found)


def _by_counting(
    spec: StudySpec, image_size: int, designs: Sequence[Design], target: Design, head: Any
) -> list[Matched]:
    load_plugins(spec.plugin)
    runtime, kind = spec.asked_task.make_runtime(), str(spec.match)
    cost = counted(kind, image_size) if head is None else lambda one: getattr(runtime.cost(one, head, image_size), kind)
    return _all(designs, partial(match, target=cost(target), cost_of=cost, by=spec.match_by))


def _all(designs: Sequence[Design], matching: Any) -> list[Matched]:
    """Each distinct design matched once."""
    found: dict[Design, Matched] = {}
    for design in designs:
        if design not in found:
            found[design] = matching(design)
    return [found[design] for design in designs]


def _device(execution: Execution, precision: str) -> tuple[str, str]:
    from roadmap.training.device import device_name, resolve_device

    device = resolve_device(execution, precision)
    return str(device), device_name(device)
