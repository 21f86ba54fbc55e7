"""Red flags: what the numbers of a prepared study say against it before anything is trained, each with its remedy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from roadmap.checks import RoadmapError
from roadmap.planning.runs import steps_of
from roadmap.training.spec import RunSpec

if TYPE_CHECKING:
    from roadmap.data.sources import ImageData
    from roadmap.planning.spec import StudySpec

#: Optimizer steps of a training from fresh weights: with 200 the start of the embedded study reaches 49 %, with 100 it
#: stays between 25 and 41 % (recipes/quick-classic.yaml).
FEWEST_STEPS = 200
#: How far all steps of an Adam-like optimizer together can move a weight, which each moves by about the learning rate
#: at most: 1.86 took modern_recipe to 80 % on an easier embedded set (lr 6e-3, 310 steps), a tenth of it to 37 %.
LEAST_WAY = 0.2
#: Standard error, in percentage points, that the choice of the test images may cause: half of the deviation between the
#: embedded study's seeds.
TEST_ERROR = 2.2


def refuse_empty_training(runs: list[RunSpec], images: int) -> None:
    """Raise `RoadmapError` for a run that would take no step on this many training images."""
    for run in runs:
        if images < run.recipe.batch_size:
            raise RoadmapError(
                f"{run.step} would train for 0 steps, since {images} training {_images(images)} do not fill one batch "
                f"of {run.recipe.batch_size}: give it more images, or a smaller --accumulate"
            )


def optimizer_steps(run: RunSpec, images: int) -> int:
    """Steps of the optimizer in the whole training of a run on this many training images."""
    return run.recipe.epochs * (images // run.recipe.batch_size)


def red_flags(spec: StudySpec, data: ImageData, runs: list[RunSpec]) -> list[str]:
    """What is wrong with the numbers of a study, a sentence each; nothing where they are sound."""
    return [f"warning: {flag}" for flag in _flags(spec, data, runs)]


def _flags(spec: StudySpec, data: ImageData, every: list[RunSpec]) -> Iterator[str]:
    first = {run.step: run for run in reversed(every)}
    runs = [first[step] for step in steps_of(every)]
    if not spec.start_from:  # trained weights need little more
        yield from _short_of_steps(len(data.train), runs)
        yield from _short_of_way(len(data.train), runs)
    if spec.asked_task.counted:
        yield from _few_test_images(len(data.test))
    if len(runs) > 1 and len(spec.seeds) == 1:
        yield (
            "one seed of each network: how far seeds vary stays unknown, so that no difference can be told from "
            "noise; give at least --seeds 3"
        )


def _short_of_steps(images: int, runs: list[RunSpec]) -> Iterator[str]:
    few = [run for run in runs if optimizer_steps(run, images) < FEWEST_STEPS]
    if few:
        least = min(few, key=lambda run: optimizer_steps(run, images))
        steps = optimizer_steps(least, images)
        of_epoch = steps // least.recipe.epochs
        epochs = f"{least.recipe.epochs} epoch{'s' * (least.recipe.epochs > 1)} of {of_epoch}"
        yield (
            f"{_named(few, runs)} {steps} optimizer steps ({epochs}), "
            f"too few to learn: {FEWEST_STEPS} are the fewest that taught a network of the embedded data set; give "
            f"--epochs {math.ceil(FEWEST_STEPS / of_epoch)}, or a smaller --batch-size"
        )


def _short_of_way(images: int, runs: list[RunSpec]) -> Iterator[str]:
    adaptive = [run for run in runs if run.recipe.optimizer not in ("sgd", "nesterov")]
    few = [run for run in adaptive if optimizer_steps(run, images) * run.recipe.peak_lr < LEAST_WAY]
    if few:
        least = min(few, key=lambda run: optimizer_steps(run, images) * run.recipe.peak_lr)
        steps, lr = optimizer_steps(least, images), least.recipe.peak_lr
        yield (
            f"{_named(few, runs)} {steps} steps at a learning rate of at most {lr:.2g}, which together move a weight "
            f"by no more than {steps * lr:.2g}, too little to learn: give more --epochs, or a larger --lr, such as "
            f"{LEAST_WAY / max(steps, FEWEST_STEPS):.1g}"
        )


def _few_test_images(images: int) -> Iterator[str]:
    error = 100 * standard_error(0.5, images)
    if error > TEST_ERROR:
        enough = math.ceil((50 / TEST_ERROR) ** 2)
        yield (
            f"{images} test {_images(images)}: one image is {100 / images:.1f} points, and their choice alone causes a "
            f"standard error of up to {error:.1f} points, which the intervals over seeds leave out; test on at least "
            f"{enough}"
        )


def standard_error(share: float, images: int) -> float:
    """Binomial standard error of an accuracy, a share of 1, on this many independently drawn images."""
    return math.sqrt(share * (1 - share) / images)


def _named(some: list[RunSpec], every: list[RunSpec]) -> str:
    if len(some) == len(every):
        return "every network gets" if len(every) > 1 else f"{every[0].step} gets"
    others = f" and {len(some) - 1} more get" if len(some) > 1 else " gets"
    return f"{some[0].step}{others}"


def _images(count: int) -> str:
    return "image" if count == 1 else "images"
