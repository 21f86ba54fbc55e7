"""What a demo shows of a study: its effects that compare two networks, with their runs, and test images to try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from roadmap.checks import RoadmapError
from roadmap.explaining.words import cost_row
from roadmap.formatting import listed, macs_unit, plural
from roadmap.reporting.sections import Section, sections_of
from roadmap.results.sentences import effect_label
from roadmap.results.study import Study
from roadmap.store.folder import StudyFolder
from roadmap.store.records import WEIGHTS
from roadmap.store.store import Store
from roadmap.tasks import check_default

#: Most test images that are offered, of as many classes as there are.
EXAMPLES = 8
#: Most effects that are named in a sentence.
_NAMED = 5


@dataclass(frozen=True)
class Comparison:
    """An effect that is the difference of two networks, and where their runs are.

    ``before`` and ``after`` are their names in the study; ``runs``: seed -> the signatures of their two runs; ``said``:
    what a report says of the effect; ``numbers``: rows of their scores and costs: name, before, after, and a ratio.
    """

    effect: str
    before: str
    after: str
    runs: Mapping[int, tuple[str, str]]
    said: Section
    numbers: tuple[tuple[str, ...], ...]

    @property
    def title(self) -> str:
        """The effect's name as a reader sees it."""
        return effect_label(self.effect)


def comparisons(study: Study) -> tuple[list[Comparison], list[str]]:
    """What a demo of a study can show, in the study's order, and sentences on what it cannot.

    Raises `RoadmapError` where that is nothing.
    """
    check_default(study.task, "a demo", study.name)
    if study.store is None:
        raise RoadmapError(
            f"a demo needs the trained networks, but the store of {study.name} is not there: only its tables were kept"
        )
    said = {section.step: section for section in sections_of(study, StudyFolder(study.path).study(), diagrams=False)}
    trained = _with_weights(study, study.store)
    found, several, untrained = [], [], []
    for row in study.effects.to_dict("records"):
        effect, before, after = row["effect"], row["against"], row["network"]
        if not isinstance(before, str) or not isinstance(after, str):
            several.append(effect)
            continue
        old, new = (trained.get(name, {}) for name in (before, after))
        runs = {seed: (old[seed], new[seed]) for seed in old if seed in new}
        if runs:
            found.append(
                Comparison(effect, before, after, runs, said[effect], _numbers(study, said[effect], before, after))
            )
        else:
            untrained.append(effect)
    left_out = [
        f"{plural(len(names), 'effect')} left out ({why}): {listed([effect_label(name) for name in names], _NAMED)}."
        for names, why in (
            (several, "no difference of two networks"),
            (untrained, "no seed with weights of both networks"),
        )
        if names
    ]
    if not found:
        why = " ".join(left_out) or "It has no two networks to compare."
        raise RoadmapError(f"{study.name} has no step to show: {why[0].lower()}{why[1:]}")
    return found, left_out


def _numbers(study: Study, said: Section, *names: str) -> tuple[tuple[str, ...], ...]:
    """Accuracy as a report words it, GMACs and parameters of two networks, in the report's units."""
    costs = study.costs.set_index("step").loc[[*names]]
    factor, unit = macs_unit(study.costs["gmacs"].astype(float))
    counted = ((unit, "gmacs", 1 / factor), ("parameters, M", "params", 1e6))
    score = next(row for row in said.changes if row[0] == study.metric)
    return (
        score,
        *(cost_row(name, ".4g", *(float(one) / scale for one in costs[column])) for name, column, scale in counted),
    )


def _with_weights(study: Study, store: Store) -> dict[str, dict[int, str]]:
    """Network -> seed -> the signature of its run, of those that are done and have weights."""
    trained: dict[str, dict[int, str]] = {}
    for run in study.runs[study.runs["status"] == "done"].to_dict("records"):
        record = store.record(run["signature"])
        if record is not None and WEIGHTS in record["files"]:
            trained.setdefault(run["step"], {})[int(run["seed"])] = run["signature"]
    return trained


def examples(study: Study) -> list[tuple[str, Image.Image]]:
    """A few test images of the study's data with their classes, one of a class; none where the data is not at hand."""
    data, _ = study.test_data
    if data is None:
        return []
    classes = np.unique(np.linspace(0, len(data.class_names) - 1, EXAMPLES).astype(int))
    labels = data.test.labels
    firsts = [int(np.flatnonzero(labels == one)[0]) for one in classes if (labels == one).any()]
    return [(data.class_names[labels[index]], data.test.picture(index)) for index in firsts]


def write_examples(images: Sequence[tuple[str, Image.Image]], folder: Path) -> None:
    """Write images as PNG files, each with its class as its title."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, picture) in enumerate(images):
        told = PngInfo()
        told.add_itxt("Title", name)
        picture.save(folder / f"{number}.png", pnginfo=told)


def read_examples(folder: Path) -> list[tuple[str, str]]:
    """Paths of the images that `write_examples` wrote, with their classes; none where there is no such folder."""
    found = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as picture:
            found.append((str(path), str(picture.info.get("Title", ""))))
    return found
