"""The sections of a report: what there is to say of every step of a study, as plain data."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from roadmap.analysis.shown import plural
from roadmap.analysis.study import Study
from roadmap.analysis.tables import regime_of
from roadmap.checks import RoadmapError
from roadmap.cost.counting import count
from roadmap.explaining import words
from roadmap.explaining.content import Explanation, explain
from roadmap.look import cost_text, label, number, signed
from roadmap.markup import ranges
from roadmap.reporting.trained import Changes, changed
from roadmap.rungs import Ladder, ladder

#: The row of costs that was measured in the runs themselves.
THROUGHPUT = "training, img/s"


@dataclass(frozen=True)
class Section:
    """What there is to say of a step, or of a network that no step stands for.

    ``step`` is its name in the study, ``name`` that for readers.
    ``numbers``: what a reader wants to know first, on a few lines. ``results``: what the study measured, by name.
    ``verdict`` is of `roadmap.analysis.statistics`, or empty, ``estimate`` what it judges, in points. ``printed``: what
    the paper says. ``shown``: the networks whose curves tell of it.
    ``explanation``: what the step does, where it can be built; ``place`` says what of it is otherwise in the study.
    """

    id: str
    step: str
    name: str
    kind: str
    section: str
    why: str
    change: str
    numbers: tuple[str, ...]
    results: tuple[tuple[str, str], ...]
    verdict: str
    estimate: str
    printed: tuple[str, ...]
    lost: tuple[str, ...]
    shown: tuple[str, ...]
    costs: tuple[tuple[str, ...], ...]
    explanation: Explanation | None = None
    place: str = ""


def sections_of(study: Study, said: Mapping[str, Any], say: Callable[[str], None]) -> Iterable[Section]:
    """One of every network of a ladder; of other designs one of every effect; and one of every reference. ``said``:
    what study.json says; ``say`` hears of every step that is to be explained."""
    steps = {row["step"]: row for row in study.steps.to_dict("records")}
    effects = {row["effect"]: row for row in study.effects.to_dict("records")}
    names = [
        *(steps if study.question.cumulative and not study.question.ranked else effects),
        *(n for n, row in steps.items() if row["reference"]),
    ]
    rungs = trained_ladder(study, said)
    ids = section_ids(dict.fromkeys(names))
    size = int(study.runs["image_size"].iloc[0])
    described = {step["name"]: step for step in study.described.get("steps", ())}
    for name in ids:
        step, effect = steps.get(name), effects.get(name)
        explanation = None
        if rungs and not (step is not None and step["reference"]):
            say(name)
            explanation = _explained(study, name, rungs, size)
        flags, training = changed(study, said, name, effect)
        if explanation is not None:
            explanation = dataclasses.replace(explanation, training=training)
        told = described.get(name, {})
        yield Section(
            id=ids[name],
            step=name,
            name=label(name) if step is None or not step["reference"] else name,
            kind=_kind(study, step, effect),
            section=explanation.section if explanation else str(told.get("section") or ""),
            why=explanation.why if explanation else str(told.get("why") or ""),
            change=_change(flags, training) or str(told.get("change") or ""),
            numbers=tuple(_numbers(study, step, effect)),
            results=tuple(_results(study, step, effect)),
            verdict=_verdict(effect),
            estimate="" if effect is None else signed(effect["estimate"]),
            printed=tuple(words.printed(explanation)) if explanation else (),
            lost=tuple(_lost(study, name)),
            shown=_networks_shown(study, name, effect),
            costs=tuple(_costs(study, step, explanation)),
            explanation=explanation,
            place=" ".join(_place(study, step, explanation, on_ladder=bool(rungs and name in rungs.names))),
        )


def trained_ladder(study: Study, said: Mapping[str, Any]) -> Ladder | None:
    """The ladder at the size of a study's networks, with its number of classes; None where it has no one size."""
    own = study.runs[~study.runs["reference"]]
    sizes = own[["width", "depth", "stem_stride"]].dropna().drop_duplicates()
    if len(sizes) != 1:
        return None
    width, depth, stride = sizes.iloc[0]
    rungs = ladder(regime_of(own)).scaled(int(width), float(depth), stem_stride=int(stride))
    classes = said.get("classes")
    count = len(classes) if isinstance(classes, list) else _counted_classes(study, rungs)
    return rungs.scaled(int(width), float(depth), stem_stride=int(stride), num_classes=count) if count else rungs


def _counted_classes(study: Study, rungs: Ladder) -> int | None:
    """How many classes the networks of a kept table tell apart, from the parameters of the first one's classifier."""
    if not study.question.cumulative or study.runs["match"].notna().any():
        return None
    first = next((row for row in study.steps.to_dict("records") if row["step"] in rungs.names), None)
    if first is None:
        return None
    design, size = rungs[first["step"]].design, int(study.runs["image_size"].iloc[0])
    one, two = (count(design.replace(num_classes=classes), size).params for classes in (1, 2))
    classes, rest = divmod(int(first["params"]) - one, two - one)
    return classes + 1 if not rest and classes >= 0 else None


def _explained(study: Study, name: str, rungs: Ladder, image_size: int) -> Explanation | None:
    """None for what is no step, compares with nothing, or cannot be built at this size: what the study has to say is
    told all the same."""
    try:
        return explain(name, rungs=rungs, image_size=image_size, studies=[study])
    except RoadmapError:
        return None


def section_ids(names: Iterable[str]) -> dict[str, str]:
    """Name -> id of its section: ``step-`` and what of the name an address can hold, no two of them alike."""
    ids: dict[str, str] = {}
    for name in names:
        base = "step-" + (re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-") or "x")
        taken = set(ids.values())
        ids[name] = next(id for n in range(1, len(taken) + 2) if (id := base if n == 1 else f"{base}-{n}") not in taken)
    return ids


Row = Mapping[Any, Any]


def _kind(study: Study, step: Row | None, effect: Row | None) -> str:
    if step is not None and step["reference"]:
        return "reference"
    if study.question.cumulative and step is not None:
        # Without a gain is a rung, too, whose start failed.
        first = step["step"] == study.steps["step"].iloc[0]
        return "the start" if first else "" if step["adopted"] else "road not taken"
    if effect is not None and _text(effect, "kind") == "interaction":
        return "interaction"
    return ""


def _verdict(effect: Row | None) -> str:
    return _text(effect, "verdict")


def _text(row: Row | None, column: str) -> str:
    """A cell that holds text, or none where it is empty, and where the table has no such column."""
    value = row.get(column) if row is not None else None
    return value if isinstance(value, str) else ""


def _top1(step: Row) -> str:
    if math.isnan(step["top1_mean"]):
        return "no result"
    deviation = "" if math.isnan(step["top1_std"]) else f" ± {step['top1_std']:.2f}"
    return f"{step['top1_mean']:.2f}{deviation} %, {plural(int(step['seeds']), 'seed')}"


def _difference(effect: Row) -> str:
    if math.isnan(effect["estimate"]):
        return "no result"
    if math.isnan(effect["low"]):
        return f"{signed(effect['estimate'])} points, no interval"
    return f"{signed(effect['estimate'])} points, interval {signed(effect['low'])} to {signed(effect['high'])}"


def _numbers(study: Study, step: Row | None, effect: Row | None) -> Iterable[str]:
    """What is said first of a step, a line each."""
    what = study.question.effect.lower()
    if step is not None:
        yield f"top-1 {_top1(step)}"
    elif effect is not None and "top1_mean" in effect:
        yield f"top-1 {_top1(effect)}"
    if effect is not None:
        against = _text(effect, "against")
        yield f"{what}{f' over {label(against)}' if against else ''} {_difference(effect)}"
        if _verdict(effect):
            yield _verdict(effect)
    cost, sign = (step, "") if step is not None else (effect, "+")
    if cost is not None:
        gmacs, params = cost_text(cost["gmacs"], cost["params"], sign)
        if gmacs:
            yield f"{gmacs} GMACs, {params} parameters"


def _results(study: Study, step: Row | None, effect: Row | None) -> Iterable[tuple[str, str]]:
    if step is not None:
        yield "Top-1", _top1(step)
        if not math.isnan(step["top1_low"]):
            yield "95 % interval of the mean", f"{number(step['top1_low'], '.2f')} to {step['top1_high']:.2f} %"
    if effect is None:
        return
    if step is None and "top1_mean" in effect:
        yield "Top-1", _top1(effect)
    against = _text(effect, "against")
    what = study.question.effect
    yield (f"{what} over {label(against)}" if against else what), _difference(effect)
    if not math.isnan(effect["p"]):
        yield "p", f"{effect['p']:.2g}; for all effects of the study at once {effect['p_all']:.2g}"
    if _verdict(effect):
        yield "Verdict", _verdict(effect)
    if "orders" in effect and not math.isnan(effect["least"]):
        yield "In any order", f"{signed(effect['least'])} to {signed(effect['greatest'])} points"
        spread = f"{number(effect['spread'], '.2f')} points"
        alone = "" if math.isnan(effect["noise"]) else f"; seeds alone would give {effect['noise']:.2f}"
        yield "Standard deviation over orders", spread + alone
    if _text(effect, "aliases"):
        yield "Cannot be told apart from", _text(effect, "aliases")
    if step is None:
        gmacs, params = cost_text(effect["gmacs"], effect["params"], "+")
        if gmacs:
            yield "Change in cost", f"{gmacs} GMACs, {params} parameters"


def _lost(study: Study, name: str) -> Iterable[str]:
    runs = study.runs[(study.runs["step"] == name) & (study.runs["status"] != "done")]
    for run in runs.to_dict("records"):
        reason = f": {run['reason']}" if isinstance(run["reason"], str) else ""
        yield f"Seed {run['seed']} failed{reason}."
    seeds = [seed for step, seed in study.missing if step == name]
    if seeds:
        yield f"Missing so far: seed {ranges(seeds)}."


def _networks_shown(study: Study, name: str, effect: Row | None) -> tuple[str, ...]:
    """The networks whose learning curves tell of a step: its own and that which it is compared with."""
    known = set(study.curves["step"]) if len(study.curves) else set()
    asked = [_text(effect, "against"), _text(effect, "network"), name]
    shown = tuple(one for one in dict.fromkeys(asked) if one in known)
    return shown if len(shown) > 1 or name in shown else ()


def _costs(study: Study, step: Row | None, explanation: Explanation | None) -> Iterable[tuple[str, ...]]:
    """Rows of costs: counted before and after, and as they were measured in the study's runs."""
    row = None if step is None else next(row for row in study.costs.to_dict("records") if row["step"] == step["step"])
    speed = math.nan if row is None else float(row["images_per_second"])
    if explanation is not None:
        yield from words.costs(explanation.before, explanation.after)
        (measured,) = explanation.studies
        if explanation.before is None and not math.isnan(speed):
            yield words.cost_row(THROUGHPUT, ".0f", None, speed)
        elif measured.speed:
            yield words.cost_row(THROUGHPUT, ".0f", *measured.speed[:2])
    elif row is not None:
        yield words.cost_row("GMACs", ".4g", None, float(row["gmacs"]))
        yield words.cost_row("parameters, M", ".4g", None, float(row["params"]) / 1e6)
        if not pd.isna(row["activations"]):
            yield words.cost_row("activations, M", ".4g", None, float(row["activations"]) / 1e6)
        if not math.isnan(speed):
            yield words.cost_row(THROUGHPUT, ".0f", None, speed)


def _change(*changes: Changes) -> str:
    """What changes, in a few words, as it was trained."""
    parts = [(name, *values) for some in changes for name, values in some.items()]
    return ", ".join(f"{name} {words.shown(old)} → {words.shown(new)}" for name, old, new in parts)


def _place(study: Study, step: Row | None, explanation: Explanation | None, on_ladder: bool) -> Iterable[str]:
    """What the explanation shows otherwise than the study has it: the place of the step, and the recipes."""
    if explanation is None or explanation.before is None:
        return
    name, before, against = explanation.title, explanation.before.name, _text(step, "against")
    if on_ladder:
        if not study.question.cumulative or against not in (before, ""):
            yield f"Shown in its place on the paper's ladder, after {label(before)}."
    elif study.effects["network"].isna().all():
        yield f"Shown on {label(before)}, without the study's other steps."
    elif study.question.cumulative and against:
        steps = dict(zip(study.runs["step"], study.runs["steps"], strict=True))
        if f"{steps[against]}+{name}".strip("+") != steps[name]:
            yield f"Shown on {label(before)}; the gain is that of all steps since {label(against)}."
    if study.runs["match"].notna().any():
        yield "Sizes and costs are those before the study rescaled its networks."
