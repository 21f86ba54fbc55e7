"""What a study found, and how it was trained, in plain sentences. Needs no matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import pandas as pd

from roadmap.formatting import decimals_of, label, listed, plural, signed
from roadmap.questions.question import Question
from roadmap.results.estimation import GAIN, LOSS, NEGLIGIBLE, OPEN

#: Most effects per verdict in a headline, and in a sentence.
NAMED, NAMED_IN_SENTENCE = 2, 5
#: What is no finding, in words.
REST = {NEGLIGIBLE: "negligible", OPEN: "undecided"}
#: What networks were brought to the same amount of, in words.
MATCHED = {"gmacs": "GMACs", "params": "parameters", "time": "training time"}


class Answered(Protocol):
    """What is asked of a study: its question, its effects, and the unit of their numbers."""

    @property
    def question(self) -> type[Question]: ...
    @property
    def effects(self) -> pd.DataFrame: ...
    @property
    def unit(self) -> str: ...


def effect_label(effect: str) -> str:
    """The name of an effect as a reader sees it: a step, several levels, or an interaction."""
    return " × ".join(label(part) for part in effect.split(" × "))


def headline(effects: pd.DataFrame, most: int = NAMED) -> str:
    """The message of a table of effects, in one line: the largest gains and losses with their numbers, what makes no
    difference that matters, and what is undecided; ``most`` names of each."""
    groups = _by_verdict(effects)
    if not len(effects):
        return "No two networks to compare"
    if not any(groups.values()):
        few = effects["seeds"].max() < 2 if "seeds" in effects else False
        return f"{'One run each' if few else 'No interval is known'}: nothing can be decided"
    decimals = decimals_of(effects["estimate"])
    found = []
    for verdict in (GAIN, LOSS):
        rows = groups[verdict]
        found += [f"{effect_label(row['effect'])} {signed(row['estimate'], decimals)}" for row in rows[:most]]
        found += [f"{plural(len(rows) - most, f'more {verdict}')}"] * (len(rows) > most)
    parts = [", ".join(found)] * bool(found)
    if groups[OPEN] and not found and not groups[NEGLIGIBLE]:
        return f"Nothing is decided; {_named(groups[OPEN], REST[OPEN], most)}"
    parts += [_named(groups[verdict], word, most) for verdict, word in REST.items() if groups[verdict]]
    return _capital("; ".join(parts))


def _named(rows: Sequence[Mapping[Any, Any]], what: str, most: int) -> str:
    """Effects that have something in common: by name if they are few, else their number."""
    few = len(rows) <= most + 1
    return f"{what}: {listed([effect_label(row['effect']) for row in rows])}" if few else f"{len(rows)} {what}"


def answer(study: Answered) -> list[str]:
    """What a study found, in three sentences: the largest gains, the losses, and what is open."""
    groups, unit = _by_verdict(study.effects), study.unit and f" {study.unit}"
    decimals = decimals_of(study.effects["estimate"])

    def numbered(verdict: str) -> str:
        rows = groups[verdict]
        return listed(
            [f"{effect_label(row['effect'])} ({signed(row['estimate'], decimals)}{unit})" for row in rows],
            NAMED_IN_SENTENCE,
        )

    gains = f"Gains, the largest first: {numbered(GAIN)}" if groups[GAIN] else "No gain is certain"
    losses = f"Losses: {numbered(LOSS)}" if groups[LOSS] else "No loss is certain"
    rest = [f"negligible: {_names(groups[NEGLIGIBLE], NAMED_IN_SENTENCE)}"] * bool(groups[NEGLIGIBLE])
    rest += [f"undecided: {_names(groups[OPEN], NAMED_IN_SENTENCE)}"] * bool(groups[OPEN])
    untold = [row["effect"] for row in study.effects.to_dict("records") if not isinstance(row["verdict"], str)]
    rest += [f"without an interval: {listed([effect_label(one) for one in untold], NAMED_IN_SENTENCE)}"] * bool(untold)
    return [f"{gains}.", f"{losses}.", f"{_capital('; '.join(rest)) or 'Nothing is undecided'}."]


def _by_verdict(effects: pd.DataFrame) -> dict[str, list[Mapping[Any, Any]]]:
    """Verdict -> its rows, the largest first."""
    rows = sorted(effects.to_dict("records"), key=lambda row: -abs(row["estimate"]))
    return {verdict: [row for row in rows if row["verdict"] == verdict] for verdict in (GAIN, LOSS, NEGLIGIBLE, OPEN)}


def _names(rows: Sequence[Mapping[Any, Any]], most: int) -> str:
    return listed([effect_label(row["effect"]) for row in rows], most)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def how_decided(effects: pd.DataFrame, matters: float, unit: str) -> str:
    """What the intervals and verdicts of a table of effects mean, in one sentence or two."""
    if effects["low"].isna().all():
        return "No interval is known: that takes two runs of some network."
    images = "images" in effects and effects.loc[effects["low"].notna(), "images"].all()
    source = "for new seeds and new test images" if images else "for new seeds"
    band = f"; negligible: within ±{matters:g}{unit and f' {unit}'}" if matters else ""
    return f"All intervals hold at once with 95 %, {source}. Gain or loss: zero is outside{band}."


def lost_text(names: Iterable[tuple[str, int, int]]) -> list[str]:
    """Sentences on lost runs, from (network, failed, missing)."""
    rows = [*names]
    sentences = []
    for place, what in ((1, "Failed"), (2, "Missing")):
        lost = [f"{label(row[0])} {row[place]}" for row in rows if row[place]]
        sentences += [f"{what} runs: {listed(lost, NAMED_IN_SENTENCE)}."] * bool(lost)
    return sentences


def values_of(runs: pd.DataFrame, column: str) -> str:
    """Every value of a column, in order of appearance: ``6`` or ``90 / 300``."""
    return " / ".join(
        dict.fromkeys(f"{value:.3g}" if isinstance(value, float) else f"{value}" for value in runs[column].dropna())
    )


def trained_text(runs: pd.DataFrame, what: str) -> str:
    """What was trained, on what, how and where, in one sentence. ``what`` is counted by seeds."""
    own = runs[~runs["reference"]]
    size = (
        f"base width {values_of(own, 'width')}, depth ×{values_of(own, 'depth')}, "
        f"stem stride {values_of(own, 'stem_stride')}; "
    )
    if not len(own):
        own, size = runs, ""
    counts = own.groupby("step")["seed"].nunique()
    seeds = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    return (
        f"{values_of(own, 'data')} at {values_of(own, 'image_size')} px; {size}epochs {values_of(own, 'epochs')}; "
        f"seeds per {what} {seeds}; recipe {values_of(own, 'recipe')}; {values_of(own, 'device_name')}."
    )


def matched_text(runs: pd.DataFrame) -> list[str]:
    """The sentence on networks that were brought to the same cost, where they were: ``gmacs by width``."""
    sentences = []
    for kind, factors in runs.groupby("match")["match_factor"]:
        cost, _, what = str(kind).partition(" by ")
        span = " to ".join(dict.fromkeys(f"×{factor:.3g}" for factor in (factors.min(), factors.max())))
        sentences.append(
            f"{(what or 'width').capitalize()} rescaled to the start's {MATCHED.get(cost, cost)}, by {span}."
        )
    return sentences
