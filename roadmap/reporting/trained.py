"""What a step changed in the training and in the networks of a study, from its own runs and never from the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from roadmap.results.study import Study

#: Settings that are labels, or follow from others.
LABELS = ("name", "why", "classic")
#: Columns of a table of runs that tell of the training, where study.json is not there to tell all of it.
KEPT = ("recipe", "optimizer", "epochs", "batch_size", "lr")

Changes = dict[str, tuple[Any, Any]]


def changed(study: Study, said: Mapping[str, Any], pair: Sequence[str]) -> tuple[Changes, Changes]:
    """(flags of the networks, settings of their training) that differ between two networks, with their values before
    and after, as they were trained; nothing where there is no ``pair``. ``said``: what study.json says."""
    if not pair:
        return {}, {}
    runs = {run["step"]: run for run in said.get("runs", ()) if {"step", "design", "recipe"} <= run.keys()}
    if all(network in runs for network in pair):
        one, other = (runs[network] for network in pair)
        return _differing(one["design"], other["design"]), _differing(one["recipe"], other["recipe"])
    own = study.runs.drop_duplicates("step").set_index("step")
    before, after = (own.loc[network, list(KEPT)].dropna().to_dict() for network in pair)
    return {}, {name: (before[name], after[name]) for name in after if name in before and before[name] != after[name]}


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


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> Changes:
    return {
        name: (before.get(name), value)
        for name, value in after.items()
        if name not in LABELS and before.get(name) != value
    }
