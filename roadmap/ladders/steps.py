"""`Step`: one named change to a network or to its training, free of any place on a ladder. Needs no torch.

What steps make of a network does not depend on their order, unless two of them set the same flag: widths and blocks are
multiplied, layers are collected, every other flag is set.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from roadmap.checks import (
    RoadmapError,
    check_bool,
    check_int,
    check_known,
    check_number,
    check_text,
    keep_plain,
    plain,
    said,
)
from roadmap.network.design import Design
from roadmap.network.layers import note_registration
from roadmap.recipes.recipe import FOLLOWED, SETTINGS, Recipe
from roadmap.settings import settings_in

#: Base width of ResNet-50 and ResNet-200, to which the widths of steps refer.
FULL_WIDTH = 64
#: What a step may multiply beside the flags that it sets.
FACTORS = ("width_factor", "depth_factor")
#: Flags of the `Design` that belong to the data or to the recipe.
NOT_OF_STEPS = ("in_channels", "num_classes", "stochastic_depth")
FLAGS = (*(field.name for field in dataclasses.fields(Design) if field.name not in NOT_OF_STEPS), *FACTORS)
#: Settings of the recipe that a step may set.
TRAINING = (*FOLLOWED, *SETTINGS)
#: As a step's ``recipe``: the recipe of the study, in place of its classic twin.
STUDY_RECIPE = "the study's"


@dataclass(frozen=True)
class Step:
    """One named change.

    ``changes``: flags of the `Design` with their new values, ``layers`` as a mapping that is added to those there are.
    ``widths``, ``stem_width`` and ``blocks`` are those at the paper's size, base width 64 and depth 1, and are scaled
    as the ladder is; ``width_factor`` and ``depth_factor`` multiply every stage's. ``recipe``: a recipe, by name or
    .yaml file, that takes the place of the one before; ``training``: settings of the recipe. ``adopted``: False for a
    road not taken, which a ladder measures and does not build upon.

    Raises `RoadmapError` with one sentence for a value that cannot be.
    """

    name: str
    why: str = ""
    section: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    adopted: bool = True

    def __post_init__(self) -> None:
        keep_plain(self)
        check_text("the name of a step", self.name)
        if not re.fullmatch(r"\w[\w.=/-]*", self.name) or self.name == LADDER:
            raise RoadmapError(
                f"the name of a step is {said(self.name)}, but must be letters, digits and any of _ . = / -, and not "
                f"'{LADDER}'"
            )
        for name in ("why", "section"):
            if not isinstance(getattr(self, name), str):
                raise RoadmapError(f"{name} of step '{self.name}' is {said(getattr(self, name))}, but must be text")
        if self.recipe is not None:
            check_text(f"recipe of step '{self.name}'", self.recipe)
        check_bool(f"adopted of step '{self.name}'", self.adopted)
        check_known(f"flag of step '{self.name}'", self.changes, FLAGS)
        check_known(f"training setting of step '{self.name}'", self.training, TRAINING)
        if not (self.changes or self.training or self.recipe):
            raise RoadmapError(f"step '{self.name}' changes nothing: give it a flag of the network or of the training")
        for factor in FACTORS:
            if factor in self.changes:
                value = self.changes[factor]
                number = float(value) if isinstance(value, Fraction) else value
                check_number(f"{factor} of step '{self.name}'", number, 1 / 64, 64)
        for name in ("epochs", "batch_size"):
            if name in self.training:
                check_int(f"{name} of step '{self.name}'", self.training[name], 1, 1_000_000)
        if "lr" in self.training:
            check_number(f"lr of step '{self.name}'", self.training["lr"], 1e-12, 1000)
        if "layers" in self.changes:
            layers = {name: dict(options) for name, options in Design(layers=self.changes["layers"]).layers}
            object.__setattr__(self, "changes", {**self.changes, "layers": layers})

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], find: Callable[[str], Step] | None = None) -> Step:
        """A step as a study's YAML file has it: ``name``, ``why``, ``section``, ``recipe``, and flags of the network
        and of the training beside them; ``steps``: names of steps that it does together, which ``find`` knows.

        Raises `RoadmapError` for a flag that does not exist.
        """
        values = plain(values)
        own = ("name", "why", "section", "recipe", "adopted")
        name = values.get("name", "?")
        check_known(f"setting of step '{name}'", values, [*own, *(["steps"] if find else []), *FLAGS, *TRAINING])
        if "name" not in values:
            raise RoadmapError(f"a step has no name: it has {', '.join(map(str, values)) or 'nothing'}")
        together = [find(word) for word in _words(values.get("steps", ()))] if find else []
        known = settings_in(Design) | settings_in(Recipe)
        values = {
            key: known[key].from_yaml(value) if key in (*FLAGS, *TRAINING) and key in known else value
            for key, value in values.items()
        }
        facts = {key: values[key] for key in own if key in values}
        changes = {key: _plain(value) for key, value in values.items() if key in FLAGS}
        training = {key: value for key, value in values.items() if key in TRAINING}
        if not together:
            return cls(**facts, changes=changes, training=training)
        parts = together
        if changes or training or facts.get("recipe"):
            parts = [*together, cls(**facts, changes=changes, training=training)]
        if why := contradiction(parts):
            raise RoadmapError(f"step '{name}': {why}")
        merged = merge(parts)
        return cls(**facts | {"recipe": merged.recipe}, changes=merged.changes, training=merged.training)

    @property
    def settings(self) -> dict[str, Any]:
        """What it sets, as plain values of which `from_mapping` makes the same step."""
        changes = {flag: float(value) if isinstance(value, Fraction) else value for flag, value in self.changes.items()}
        return {**changes, **self.training, **({"recipe": self.recipe} if self.recipe else {})}

    @property
    def change(self) -> str:
        """What it changes, in a few words, such as ``kernel_size 7``."""
        parts = [f"{flag} {_short(value)}" for flag, value in self.changes.items() if flag != "layers"]
        parts += [
            f"+ {name}" + "".join(f" {option} {_short(value)}" for option, value in (options or {}).items())
            for name, options in self.changes.get("layers", {}).items()
        ]
        if self.recipe:
            parts.append("recipe classic → modern" if self.recipe == STUDY_RECIPE else f"recipe {self.recipe}")
        return ", ".join(parts + [f"{name} {_short(value)}" for name, value in self.training.items()])


#: The word that stands for all steps of the ladder.
LADDER = "ladder"


def _words(value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Iterable) or not all(isinstance(word, str) for word in value):
        raise RoadmapError(f"steps is {said(value)}, but must be a list of names of steps")
    return list(value)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (tuple, list)):
        return "-".join(map(str, value))
    return f"{float(value):.3g}" if isinstance(value, (Fraction, float)) else str(value).lower()


@dataclass(frozen=True)
class Merged:
    """What some steps change together."""

    changes: dict[str, Any]
    recipe: str | None
    training: dict[str, Any]


def merge(steps: Iterable[Step]) -> Merged:
    """What these steps change together, one after the other: factors are multiplied, layers collected, a flag that
    several set is the last one's, and so are widths, whatever multiplied them before."""
    changes: dict[str, Any] = {}
    training: dict[str, Any] = {}
    recipe = None
    for step in steps:
        for flag, value in step.changes.items():
            if flag in FACTORS:
                changes[flag] = changes.get(flag, Fraction(1)) * Fraction(value).limit_denominator(10**6)
            elif flag == "layers":
                changes[flag] = {**changes.get(flag, {}), **value}
            else:
                changes[flag] = value
                if flag == "widths":  # as they stand, whatever was multiplied before
                    changes.pop("width_factor", None)
        training |= step.training
        recipe = step.recipe or recipe
    return Merged(changes, recipe, training)


def contradiction(steps: Sequence[Step]) -> str | None:
    """Why these steps cannot all be in one network whatever their order, or None: two set one flag differently."""
    for index, step in enumerate(steps):
        for other in steps[:index]:
            for flag in sorted({*step.changes, *step.training} & {*other.changes, *other.training}):
                mine, theirs = ({**one.changes, **one.training}[flag] for one in (step, other))
                if flag == "layers":
                    mine, theirs = ({name: one[name] for name in mine.keys() & theirs.keys()} for one in (mine, theirs))
                if flag not in FACTORS and mine != theirs:
                    return (
                        f"'{other.name}' and '{step.name}' both set {flag}, to {_short(theirs)} and {_short(mine)}: "
                        "one network cannot have both"
                    )
            for one, two in ((step, other), (other, step)):
                if "widths" in one.changes and "width_factor" in two.changes:
                    return f"'{one.name}' sets the widths that '{two.name}' multiplies: one network cannot have both"
            if step.recipe and other.recipe and step.recipe != other.recipe:
                return f"'{other.name}' and '{step.name}' both set the recipe: one training cannot have both"
    return None


def is_alternative(step: Step, other: Step) -> bool:
    """Whether a step sets just the flags that the other does: another answer to its question, no addition to it."""
    flags = [{*one.changes, *one.training} for one in (step, other)]
    return flags[0] == flags[1] != set() and not flags[0] & {*FACTORS, "layers"} and not (step.recipe or other.recipe)


def compose(start: Design, steps: Iterable[Step], width: int = FULL_WIDTH, depth: float = 1.0) -> Design:
    """The network that steps make of ``start``, which has the paper's size, scaled.

    ``width``: base width of the start in channels (64 in the paper), to which every step's widths keep their ratio.
    ``depth``: factor on the blocks of every stage, at least one each. Raises `RoadmapError` where the flags contradict
    each other.
    """
    changes = merge(steps).changes
    multiples = changes.pop("widths", start.widths)
    blocks = changes.pop("blocks", start.blocks)
    width_factor, depth_factor = (changes.pop(factor, Fraction(1)) for factor in FACTORS)
    for name, value in (("widths", multiples), ("blocks", blocks)):
        if not isinstance(value, (tuple, list)) or not value:
            raise RoadmapError(f"{name} is {said(value)}, but must be a list of whole numbers, one a stage")
        for number in value:
            check_int(name, number, 1)
    base = half_up(multiples[0] * width_factor * width / FULL_WIDTH)
    if isinstance(stem := changes.get("stem_width"), int) and not isinstance(stem, bool):
        changes["stem_width"] = max(1, half_up(stem * width / FULL_WIDTH))
    return start.replace(
        widths=tuple(max(1, half_up(Fraction(base * multiple, multiples[0]))) for multiple in multiples),
        blocks=tuple(max(1, half_up(count * depth * float(depth_factor))) for count in blocks),
        **changes,
    )


def half_up(value: float | Fraction) -> int:
    """The nearest whole number, the larger of two."""
    return int(value + Fraction(1, 2))


# --- steps by name

registered_steps: dict[str, Step] = {}


def step(name: str, why: str, section: str = "", **changes: Any) -> Step:
    """Make a step known by its name, from a plug-in: ``step("wide", why="...", width_factor=2, mixup=0.2)``.

    ``changes`` are flags of the `Design`, `FACTORS`, settings of the recipe, and ``recipe``. Raises `RoadmapError` for
    a flag that does not exist.
    """
    made = Step.from_mapping({"name": name, "why": why, "section": section, **changes})
    if name in registered_steps and registered_steps[name] != made:
        raise RoadmapError(f"there is a step '{name}' already: give this one another name")
    registered_steps[name] = made
    note_registration(f"step {name}", lambda: registered_steps.pop(name, None))
    return made
