"""What a step changed in the training and in the networks of a study, from its own runs and never from the paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roadmap.results.study import Study

#: Settings that are labels, or follow from others.
LABELS = ("name", "why", "classic")
#: Columns of a table of runs that tell of the training, where study.json is not there to tell all of it.
KEPT = ("recipe", "optimizer", "epochs", "batch_size", "lr")

Settings = Mapping[str, Any]
Changes = dict[str, tuple[Any, Any]]


def trained_as(study: Study, said: Mapping[str, Any]) -> dict[str, tuple[Settings, Settings]]:
    """Network -> (flags of the network, settings of its training), as it was trained; of a kept table that has no
    study.json beside it no flags, and `KEPT`. ``said``: what study.json says."""
    runs = {run["step"]: run for run in said.get("runs", ()) if {"step", "design", "recipe"} <= run.keys()}
    own = study.runs.drop_duplicates("step").set_index("step")
    if runs.keys() >= {*own.index}:
        return {step: (run["design"], run["recipe"]) for step, run in runs.items()}
    return {step: ({}, row.dropna().to_dict()) for step, row in own[[*KEPT]].iterrows()}


def changed(before: Settings, after: Settings) -> Changes:
    """The settings that differ, labels aside, with their values before and after."""
    return {
        name: (before[name], value)
        for name, value in after.items()
        if name not in LABELS and name in before and before[name] != value
    }


def compared(study: Study, name: str, effect: Mapping[Any, Any] | None) -> tuple[str, ...]:
    """The networks without and with a step: those that its effect compares, else two that differ in it alone; none
    where there are no such two."""
    if effect is not None and isinstance(effect["network"], str):
        return str(effect["against"]), str(effect["network"])
    own = study.runs[~study.runs["reference"]].drop_duplicates("step")
    networks = {frozenset(steps.split("+")) - {""}: step for step, steps in zip(own["step"], own["steps"], strict=True)}
    pairs = (
        (networks[key - {name}], step) for key, step in networks.items() if name in key and key - {name} in networks
    )
    return next(pairs, ())
