"""What a weights file says of its own network, so that it is complete in itself. Needs neither torch nor timm."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from roadmap.checks import RoadmapError, check_bool, check_int, check_known, check_number, check_text, keep_plain
from roadmap.network.building import design_from_dict
from roadmap.network.families import NetworkDesign, family_in

#: What names a rung of a scaled ladder.
RUNG = ("regime", "step", "adopted", "width", "depth")


@dataclass(frozen=True)
class Description:
    """A trained network beside its weights: its ``design`` and, where known, the ``class_names`` in the order of its
    outputs, the side of its training images in pixels, by channel of RGB in 0..1 what they were normalised with, and
    the ``rung`` that it stands for: regime, step, adopted, and width and depth of the ladder. ``task`` and ``head``:
    what it was trained to do, and the settings of the head on it, where it is more than its design's network.

    Raises `RoadmapError` with one sentence for a value that cannot be.
    """

    design: NetworkDesign
    class_names: tuple[str, ...] | None = None
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    rung: dict[str, Any] | None = None
    task: str | None = None
    head: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        keep_plain(self)
        channels = self.design.in_channels
        for name, length in (("class_names", self.design.num_classes), ("mean", channels), ("std", channels)):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, (list, tuple)) or len(value) != length:
                raise RoadmapError(f"{name} must be a list of {length}")
            object.__setattr__(self, name, tuple(value))
        if not all(isinstance(name, str) for name in self.class_names or ()):
            raise RoadmapError("class_names must be text")
        for number in self.mean or ():
            check_number("mean", number, 0.0, 1.0)
        for number in self.std or ():
            check_number("std", number, 1e-6, 1.0)
        if self.rung is not None:
            if not isinstance(self.rung, dict) or set(self.rung) != set(RUNG):
                raise RoadmapError(f"rung must have {', '.join(RUNG)}")
            check_text("regime", self.rung["regime"])
            check_text("step", self.rung["step"])
            check_bool("adopted", self.rung["adopted"])
            check_int("width", self.rung["width"], 1)
            check_number("depth", self.rung["depth"], 0.0)
        if self.task is not None:
            check_text("task", self.task)
        if self.image_size is not None:
            check_int("image_size", self.image_size, 1)

    def to_text(self) -> str:
        """JSON, the same for equal descriptions, and without a task where its design is all of the network."""
        facts = dataclasses.asdict(self)
        if self.head is None:
            del facts["task"], facts["head"]
        return json.dumps(facts)


def parse_description(content: Any) -> Description:
    """The description in plain values, as `Description.to_text` writes them; the ``design``, of any
    family, must name all its flags but those that came later.

    Raises `RoadmapError` for anything else.
    """
    if not isinstance(content, dict) or not isinstance(content.get("design"), dict):
        raise RoadmapError("there is no design")
    check_known("fact", content, [field.name for field in dataclasses.fields(Description)])
    family = family_in(content["design"])
    flags = [field.name for field in dataclasses.fields(family.settings)]
    check_known("flag of the design", content["design"], flags)
    for flag in flags:  # a default that has changed since must not stand in for what was trained
        if flag not in {**family.later, **content["design"]}:
            raise RoadmapError(f"its design lacks {flag}")
    return Description(**content | {"design": design_from_dict(content["design"])})


def read_description(text: str) -> Description:
    """The description in the JSON of `Description.to_text`. Raises `RoadmapError` for anything else."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise RoadmapError("it is not valid JSON") from None
    return parse_description(content)
