"""What finished studies measured of a step, or of two networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from roadmap.explaining.explanation import MeasuredEffect, NetworkScore, StudyFindings

if TYPE_CHECKING:
    import pandas as pd


class StudyLike(Protocol):
    """What is read of a finished study: a `roadmap.results.study.Study`."""

    @property
    def path(self) -> Path: ...
    @property
    def runs(self) -> pd.DataFrame: ...
    @property
    def design(self) -> str: ...
    @property
    def described(self) -> Mapping[str, Any]: ...
    @property
    def steps(self) -> pd.DataFrame: ...
    @property
    def effects(self) -> pd.DataFrame: ...


def findings_of_step(study: StudyLike, step: str, regime: str) -> StudyFindings:
    """What a study says of a step: its effect, those of its combinations, and the network of its name."""
    if remark := other_regime(study, regime):
        return _said(study, remark)
    rows = [row for row in study.effects.to_dict("records") if step in str(row["effect"]).split(" × ")]
    effects = [
        MeasuredEffect(
            str(row["effect"]),
            _number(row["estimate"]),
            _number(row["low"]),
            _number(row["high"]),
            int(row["seeds"]),
            int(row["failed"]),
            *(row[name] if isinstance(row[name], str) else None for name in ("against", "verdict")),
        )
        for row in rows
    ]
    networks = _trained(study, [step])
    remark = "" if effects or networks else f"nothing about {step}"
    return _said(study, remark, effects, networks, _pairs(study, step))


def findings_of_networks(study: StudyLike, names: Sequence[str], regime: str) -> StudyFindings:
    """What a study says of two networks."""
    if remark := other_regime(study, regime):
        return _said(study, remark)
    networks = _trained(study, names)
    remark = "" if networks else f"neither {names[0]} nor {names[1]}"
    return _said(study, remark, [], networks, [(names[0], names[1])])


def _pairs(study: StudyLike, step: str) -> list[tuple[str, str]]:
    """Names of the networks of a study that differ in a step alone: without it, and with it."""
    effects = study.effects
    plain = effects[(effects["effect"] == step) & effects["network"].notna()]
    if len(plain):
        return [*plain[["against", "network"]].itertuples(index=False, name=None)]
    own = study.runs[~study.runs["reference"]]
    names = {
        frozenset(str(steps).split("+")) - {""}: name for name, steps in zip(own["step"], own["steps"], strict=True)
    }
    return [(names[key - {step}], name) for key, name in names.items() if step in key and key - {step} in names]


def _speeds(study: StudyLike, pairs: Sequence[tuple[str, str]]) -> tuple[float, float, str] | None:
    """Images per second in training, the mean over pairs of networks, of the first and of the second of each, and the
    device; None where they are not all known, of one device."""
    runs = study.runs[study.runs["images_per_second"].notna()]
    speeds = runs.groupby("step")["images_per_second"].mean()
    there = [pair for pair in pairs if pair[0] in speeds and pair[1] in speeds]
    devices = runs.loc[runs["step"].isin([name for pair in there for name in pair]), "device_name"].unique()
    if len(devices) != 1:
        return None
    first, second = (float(speeds[[pair[side] for pair in there]].mean()) for side in (0, 1))
    return first, second, str(devices[0])


def _trained(study: StudyLike, names: Sequence[str]) -> list[NetworkScore]:
    rows = {row["step"]: row for row in study.steps.to_dict("records")}
    return [
        NetworkScore(
            name, _number(rows[name]["score_mean"]), _number(rows[name]["score_std"]), int(rows[name]["seeds"])
        )
        for name in names
        if name in rows
    ]


def other_regime(study: StudyLike, regime: str) -> str:
    """Why a study says nothing of this regime's networks: it is of another one; else empty."""
    other = str(study.runs["regime"].iloc[0])
    return "" if other == regime else f"it is of the regime {other}"


def _said(
    study: StudyLike,
    remark: str,
    effects: Sequence[MeasuredEffect] = (),
    networks: Sequence[NetworkScore] = (),
    pairs: Sequence[tuple[str, str]] = (),
) -> StudyFindings:
    first = study.runs.iloc[0]
    setting = f"{first['data']}, {first['image_size']} px, width {first['width']}, {study.runs['epochs'].max()} epochs"
    speeds = _speeds(study, pairs)
    return StudyFindings(study.path.name, study.design, setting, tuple(effects), tuple(networks), speeds, remark)


def _number(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
