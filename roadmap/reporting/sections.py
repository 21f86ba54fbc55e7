"""The sections of a report, one per step of a study, as plain data."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from roadmap.checks import RoadmapError
from roadmap.explaining import words
from roadmap.explaining.content import explain
from roadmap.explaining.explanation import Explanation
from roadmap.explaining.spatial import field_of, half_side, spatial_share
from roadmap.formatting import cost_text, decimals_of, label, macs_unit, number, plural, signed
from roadmap.ladders.ladder import Ladder
from roadmap.ladders.rungs import ladder
from roadmap.markup import ranges
from roadmap.phases import phase
from roadmap.reference import QuizQuestion, questions
from roadmap.reporting.trained import changed, compared, trained_as
from roadmap.results.effects import TrainedNetwork
from roadmap.results.figures import Figures
from roadmap.results.flips import flips_html
from roadmap.results.sentences import effect_label
from roadmap.results.study import Study
from roadmap.results.tables import regime_of

Row = Mapping[Any, Any]
#: Costs of two networks but for their operations: the column of a study's costs, its words, digits and scale.
COSTS = (
    ("params", "parameters, M", ".4g", 1e6),
    ("activations", "activations, M", ".4g", 1e6),
    ("images_per_second", "training, img/s", ".0f", 1.0),
)
#: Columns of `words.stages` of a network, and what they are called; the blocks are a flag.
STAGES = {1: "channels", 2: "size, px", 3: "receptive field, px"}
#: The row of `roadmap.explaining.spatial.half_side`.
SEEN = "half of the effective receptive field, px"


@dataclass(frozen=True)
class Section:
    """The section of a step, or of a network that no step stands for.

    ``step`` is its name in the study, ``name`` that for readers, and ``kind`` says where it stands. ``verdict`` is of
    `roadmap.results.statistics`, or empty; ``estimate`` is what it judges, or the score where there is no effect, with
    its ``interval``; ``results``: what else was measured, by name. ``changes``: what differs between the networks of
    ``between``: name, before, after and ratio; of a single network name and value. ``curves``: the networks whose
    learning curves tell of it. ``explanation``: what the step does, where that is drawn; ``place`` says what of it is
    otherwise in the study. ``flips``: HTML on the test images that it gains and loses.
    """

    id: str
    step: str
    name: str
    kind: str
    why: str
    change: str
    verdict: str
    estimate: str
    interval: str
    results: tuple[tuple[str, str], ...]
    between: str
    changes: tuple[tuple[str, ...], ...]
    lost: tuple[str, ...]
    curves: tuple[str, ...] = ()
    questions: tuple[QuizQuestion, ...] = ()
    explanation: Explanation | None = None
    place: str = ""
    flips: str = ""

    @property
    def numbers(self) -> tuple[str, ...]:
        """What is said first of it, a line each."""
        lines = (self.estimate, self.interval, self.verdict, *(f"{name}: {value}" for name, value in self.results))
        return tuple(filter(None, lines))


def sections_of(study: Figures, said: Mapping[str, Any], diagrams: bool) -> Iterable[Section]:
    """One of every network of a ladder; of other designs one of every effect; and one of every reference. ``said``:
    what study.json says. With ``diagrams`` every step is explained."""
    networks = {one.cell.name: one for one in study.networks}
    effects = {row["effect"]: row for row in study.effects.to_dict("records")}
    names = [
        *(networks if study.question.cumulative and not study.question.ranked else effects),
        *(name for name, one in networks.items() if one.cell.reference),
    ]
    ours = study if isinstance(study, Study) else None
    rungs = trained_ladder(ours, said, count=diagrams) if ours else None
    described = {step["name"]: step for step in study.described.get("steps", ())}
    decimals = decimals_of(study.effects["estimate"]) + 1
    trained, costs = (trained_as(ours, said), ours.costs.set_index("step")) if ours else ({}, None)
    lost, drawn = (_lost(ours), {*ours.curves["step"]}) if ours else ({}, ())
    ids = section_ids(dict.fromkeys(names))
    for name in ids:
        network, effect = networks.get(name), effects.get(name)
        reference = network is not None and network.cell.reference
        rung = rungs[name] if rungs and name in rungs.names and not reference else None
        told = {"why": rung.why, "section": rung.section, "change": rung.change} if rung else described.get(name, {})
        own = _pair(effect) if effect else (name,)
        shown = [networks[one] for one in own] if {*own} <= networks.keys() else []
        pair = [trained[one] for one in compared(ours, name, effect)] if ours else []
        flags, training = (changed(*sides) for sides in zip(*pair, strict=True)) if pair else ({}, {})
        explanation = None
        if ours and rungs and diagrams and not reference:
            with phase(f"explaining {name}"):
                explanation = _explained(ours, name, rungs, costs=not shown)
        if explanation:
            explanation = dataclasses.replace(explanation, training=training)
            flags = flags or explanation.flags
        settings = [(key, words.shown(old), words.shown(new), "") for key, (old, new) in (flags | training).items()]
        ends = [one.cell.name for one in shown] if effect else []
        if explanation and explanation.before and not ends:
            ends = [explanation.before.name, explanation.after.name]
        yield Section(
            id=ids[name],
            step=name,
            name=name if reference else effect_label(name),
            kind=", ".join(filter(None, (_kind(network, effect, name == next(iter(networks))), told.get("section")))),
            why=str(told.get("why") or ""),
            change="" if settings else str(told.get("change") or ""),
            verdict=_text(effect, "verdict"),
            estimate=_estimate(study, network, effect, decimals),
            interval=_interval(effect, decimals),
            results=tuple(_results(effect, decimals, study.unit)),
            between=" → ".join(label(one) for one in ends),
            changes=(
                *_scores(study, shown),
                *settings,
                *_costs(costs, shown, explanation),
                *_stages(explanation),
                *_seen(explanation),
            ),
            lost=tuple(lost.get(name, ())),
            curves=tuple(one.cell.name for one in shown if one.cell.name in drawn),
            questions=questions().get(name, ()) if rung else (),
            explanation=explanation,
            place=" ".join(_place(ours, effect, explanation, rung is not None)) if ours else "",
            flips=_flips(ours, name) if ours and ours.store and _pair(effect) else "",
        )


def trained_ladder(study: Study, said: Mapping[str, Any], count: bool = True) -> Ladder | None:
    """The ladder at the size of a study's networks, with its number of classes, which takes torch to ``count`` where
    study.json does not say it; None where it has no one size."""
    own = study.runs[~study.runs["reference"]]
    sizes = own[["width", "depth", "stem_stride"]].dropna().drop_duplicates()
    if len(sizes) != 1:
        return None
    width, depth, stride = sizes.iloc[0]
    rungs = ladder(regime_of(own)).scaled(int(width), float(depth), stem_stride=int(stride))
    classes = said.get("classes")
    known = len(classes) if isinstance(classes, list) else _counted_classes(study, rungs) if count else None
    return rungs.scaled(int(width), float(depth), stem_stride=int(stride), num_classes=known) if known else rungs


def _counted_classes(study: Study, rungs: Ladder) -> int | None:
    """How many classes the networks of a kept table tell apart, from the parameters of the first one's classifier."""
    from roadmap.cost.counting import count_params

    first = next((row for row in study.steps.to_dict("records") if row["step"] in rungs.names), None)
    if not study.question.cumulative or study.runs["match"].notna().any() or first is None:
        return None
    one, two = (count_params(rungs[first["step"]].design.replace(num_classes=classes)) for classes in (1, 2))
    classes, rest = divmod(int(first["params"]) - one, two - one)
    return classes + 1 if not rest and classes >= 0 else None


def _explained(study: Study, name: str, rungs: Ladder, costs: bool) -> Explanation | None:
    """None for what is no step, compares with nothing, or cannot be built at this size: what the study has to say is
    told all the same. ``costs``: count them, as there are no runs that have them."""
    studies = [] if name in rungs.names else [study]  # which say what their own steps are
    try:
        return explain(name, rungs, int(study.runs["image_size"].iloc[0]), studies=studies, costs=costs)
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


def _text(row: Row | None, column: str) -> str:
    """A cell that holds text, or none where it is empty, and where the table has no such column."""
    value = row.get(column) if row is not None else None
    return value if isinstance(value, str) else ""


def _pair(effect: Row | None) -> tuple[str, ...]:
    """The two networks that an effect is the difference of; none where it is one of several."""
    pair = (_text(effect, "against"), _text(effect, "network"))
    return pair if all(pair) else ()


def _kind(network: TrainedNetwork | None, effect: Row | None, first: bool) -> str:
    if network is None:
        return "interaction" if _text(effect, "kind") == "interaction" else ""
    if network.cell.reference:
        return "reference"
    # Without an effect is a network, too, whose start failed.
    return "the start" if first and effect is None else "" if network.cell.adopted else "road not taken"


def _estimate(study: Figures, network: TrainedNetwork | None, effect: Row | None, decimals: int) -> str:
    if effect is not None:
        unit = study.unit and f" {study.unit}"
        return "no result" if math.isnan(effect["estimate"]) else signed(effect["estimate"], decimals) + unit
    return (
        f"{study.metric_short} {_score(network).partition(' ')[0]}" if network and network.sample.count else "no result"
    )


def _interval(effect: Row | None, decimals: int) -> str:
    if effect is None or math.isnan(effect["estimate"]):
        return ""
    if math.isnan(effect["low"]):
        return "no interval"
    return f"{signed(effect['low'], decimals)} to {signed(effect['high'], decimals)}"


def _score(network: TrainedNetwork) -> str:
    sample = network.sample
    if not sample.count:
        return "no result"
    deviation = "" if sample.count < 2 else f" ± {sample.variance**0.5:.2{'g' if abs(sample.mean) < 1 else 'f'}}"
    return f"{_mean(network)}{deviation} ({plural(sample.count, 'seed')})"


def _mean(network: TrainedNetwork) -> str:
    return number(network.sample.mean, ".4g" if abs(network.sample.mean) < 1 else ".2f")


def _results(effect: Row | None, decimals: int, unit: str) -> Iterable[tuple[str, str]]:
    """What else is known of an effect."""
    if effect is None:
        return
    if not math.isnan(effect["p"]):
        yield "p", f"{effect['p']:.2g}; for all effects of the study at once {effect['p_all']:.2g}"
    if not math.isnan(effect.get("least", math.nan)):
        yield "In any order", f"{signed(effect['least'], decimals)} to {signed(effect['greatest'], decimals)} {unit}"
        alone = "" if math.isnan(effect["noise"]) else f"; seeds alone would give {effect['noise']:.2f}"
        yield "Standard deviation over orders", f"{number(effect['spread'], '.2f')} {unit}{alone}"
    if _text(effect, "aliases"):
        yield "Cannot be told apart from", _text(effect, "aliases")
    if not _pair(effect) and (text := cost_text(effect.get("gmacs", math.nan), effect.get("params", math.nan), "+")):
        yield "Change in cost", text


# --- what differs


def _scores(study: Figures, shown: Sequence[TrainedNetwork]) -> Iterable[tuple[str, ...]]:
    ratio = ("",) * (len(shown) == 2)
    if shown:
        yield study.metric, *map(_score, shown), *ratio
    printed = [study.printed.get(one.cell.name) for one in shown]
    if None not in printed and printed:
        yield "the paper: ImageNet-1K (%)", *(number(one, ".2f") for one in printed), *ratio


def _costs(
    costs: pd.DataFrame | None, shown: Sequence[TrainedNetwork], explanation: Explanation | None
) -> Iterable[tuple[str, ...]]:
    """Rows of costs as they were counted and measured in the study's runs, where they differ; of an effect that no two
    networks tell, as they are in the place where it is explained."""
    if costs is None:
        return
    if not shown and explanation is not None:
        yield from (row for row in words.costs(explanation.before, explanation.after) if len(set(row[1:3])) > 1)
    known = costs.loc[[one.cell.name for one in shown]]
    factor, unit = macs_unit(costs["gmacs"].astype(float))
    for column, name, form, scale in (("gmacs", unit, ".4g", 1 / factor), *COSTS):
        values = [float(value) / scale for value in known[column].dropna()]
        alike = column != "images_per_second" or known["device_name"].nunique() == 1
        if values and alike and len(values) == len(shown) and (len(values) == 1 or values[0] != values[1]):
            yield words.cost_row(name, form, values[0] if values[1:] else None, values[-1])


def _stages(explanation: Explanation | None) -> Iterable[tuple[str, ...]]:
    """Rows on the feature maps behind the stem and each stage, where they differ."""
    if explanation is None or explanation.before is None:
        return
    width = len(words.STAGE_COLUMNS)
    rows = words.stages(explanation.before, explanation.after)
    for column, name in STAGES.items():
        before, after = (", ".join(row[1 + column + side] for row in rows) for side in (0, width))
        if before != after:
            yield f"{name}, by stage", before, after, ""


def _seen(explanation: Explanation | None) -> Iterable[tuple[str, ...]]:
    """Rows on how the networks look around, where they differ in that."""
    if explanation is None or explanation.before is None:
        return
    networks = explanation.before, explanation.after
    before, after = (f"{100 * spatial_share(one):.0f}" for one in networks)
    if before != after:
        yield "spatial convolutions, % of operations", before, after, ""
    kernels = [[stage.receptive_field for stage in one.stages] for one in networks]
    if kernels[0] != kernels[1]:
        try:
            yield SEEN, *(str(half_side(field_of(one, explanation.image_size))) for one in networks), ""
        except RoadmapError:
            return


def _lost(study: Study) -> dict[str, list[str]]:
    """Network -> sentences on its runs that failed, and on those that are missing."""
    lost: dict[str, list[str]] = {}
    for run in study.runs.query("status != 'done'").to_dict("records"):
        reason = f": {run['reason']}" if isinstance(run["reason"], str) else ""
        lost.setdefault(run["step"], []).append(f"Seed {run['seed']} failed{reason}.")
    for name in dict.fromkeys(step for step, _ in study.missing):
        seeds = [seed for step, seed in study.missing if step == name]
        lost.setdefault(name, []).append(f"Missing so far: seed {ranges(seeds)}.")
    return lost


def _flips(study: Study, name: str) -> str:
    try:
        return flips_html(study.flips(name))
    except RoadmapError as error:
        return f"<p>No test images are compared: {escape(str(error))}</p>"


def _place(study: Study, effect: Row | None, explanation: Explanation | None, on_ladder: bool) -> Iterable[str]:
    """What the diagrams show otherwise than the study has it: the place of the step, and the sizes."""
    if explanation is None or explanation.before is None:
        return
    name, before, against = explanation.title, explanation.before.name, _text(effect, "against")
    if on_ladder:
        if not study.question.cumulative or against not in (before, ""):
            yield f"Shown in its place on the paper's ladder, after {label(before)}."
    elif study.effects["network"].isna().all():
        yield f"Shown on {label(before)}, without the study's other steps."
    elif study.question.cumulative and against:
        steps = dict(zip(study.runs["step"], study.runs["steps"], strict=True))
        if f"{steps[against]}+{name}".strip("+") != steps[name]:
            yield f"Shown on {label(before)}; the gain is that of all steps since {label(against)}."
