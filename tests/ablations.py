"""Ablation studies whose truth is known: the runs of a design, from a function of the steps in a network."""

from __future__ import annotations

import pandas as pd

from roadmap.ladders.rungs import find_step, ladder, step_names
from roadmap.ladders.steps import Step
from roadmap.questions import question_named
from roadmap.questions.question import Builder

FACTORS = ["large_kernel", "gelu", "layer_norm"]


def step_named(name):
    """A step of the ladder, or one of that name that changes something harmless."""
    return find_step(name) if name in step_names("resnet50") else Step(name, training={"label_smoothing": 0.1})


def make_ablation(design, value, factors=FACTORS, seeds=3, orders=None, settings=None, **said):
    """(runs, facts) of a question on some steps behind the modern recipe, planned by the program.

    ``value``: (frozenset of steps, seed) -> top1; None for a run that failed and ``...`` for one that is missing.
    ``orders``: those of an order study, in place of drawn ones; ``settings``: of the question; ``said`` replaces facts.
    """
    steps = [step_named(name) for name in factors]
    build = Builder((find_step("modern_recipe"),), "modern_recipe", tuple(steps))
    if design == "order":
        settings = {"orders": "all"} | (settings or {})
    plan = question_named(design)(**(settings or {})).plan(build)
    networks = {network.name: network.key - {"modern_recipe"} for network in plan.networks}
    if orders is not None:
        passed = {frozenset(order[:length]) for order in orders for length in range(len(order) + 1)}
        networks = {name: key for name, key in networks.items() if key in passed}
        said = {"orders": [list(order) for order in orders], "exact": False} | said
    runs = make_networks(design, networks, value, seeds, ["modern_recipe", *factors])
    return runs, plan.facts | said


def make_sweep(levels, value, seeds=3, grid=False):
    """(runs, facts) of a sweep, planned by the program. ``levels``: flag -> its levels, as in a study's file; ``value``
    is of the names of levels, such as ``kernel_size=3``."""
    plan = question_named("sweep")(sweep=levels, grid=grid).plan(Builder((), "none of them", ()))
    networks = {network.name: network.key for network in plan.networks}
    order = [step["name"] for step in plan.facts["steps"]]
    return make_networks("sweep", networks, value, seeds, order), plan.facts


#: Levels of two flags.
LEVELS = {"kernel_size": [3, 5, 7], "norm": ["batch", "layer"]}


def make_star():
    """(runs, facts) of a sweep of two flags, one at a time: each level is worth its place in its list."""
    names = [f"{flag}={level}" for flag, levels in LEVELS.items() for level in levels]
    worth = dict(zip(names, [0, 1, 2, 0, 1], strict=True))
    return make_sweep(LEVELS, lambda steps, seed: 70 + seed / 8 + worth[min(steps)])


def make_networks(design, networks, value, seeds, order):
    """Rows of runs from ``{name: frozenset of steps}``; with ``order`` the steps of a network are listed."""
    rows = [
        row(design, name, "+".join(step for step in order if step in steps or step == "modern_recipe"), seed, top1,
            gmacs=0.01 * (1 + len(steps)), params=1000 * (1 + len(steps)))
        for name, steps in networks.items()
        for seed in range(seeds)
        if (top1 := value(steps, seed)) is not ...
    ]  # fmt: skip
    return pd.DataFrame(rows)


def reference(name, top1s, gmacs=0.03, **values):
    """Rows of a reference model, one a seed."""
    return [
        row(None, name, None, seed, top1, gmacs, 5000, reference=True, adopted=None, width=None, depth=None, **values)
        for seed, top1 in enumerate(top1s)
    ]


def row(design, step, steps, seed, top1, gmacs, params, **values):
    return {
        "regime": "resnet50", "ablation": design, "step": step, "steps": steps, "reference": False, "adopted": True,
        "seed": seed, "status": "failed" if top1 is None else "done", "top1": top1, "gmacs": gmacs, "params": params,
        "epochs": 6, "seconds": 10.0, "images_per_second": 1000.0, "data": "cifar10", "image_size": 32, "width": 16,
        "depth": 0.34, "stem_stride": 2, "recipe": "small", "device_name": "a processor", **values,
    }  # fmt: skip


def steps_said(names):
    known = ladder().names
    return [
        {
            "name": name,
            "why": "to see",
            "section": ladder()[name].section if name in known else "",
            "change": ladder()[name].change if name in known else name.replace("=", " → "),
            "adopted": True,
        }
        for name in names
    ]


def own_ladder():
    """(runs, ablation) of a ladder with two steps that the paper does not know, one of them a road not taken."""
    path = ["modern_recipe", "squeeze", "stage_ratio"]
    ways = {
        "resnet50": [],
        "modern_recipe": path[:1],
        "squeeze": path[:2],
        "squeeze_more": ["modern_recipe", "squeeze_more"],
        "stage_ratio": path,
    }
    networks = {name: frozenset(way) for name, way in ways.items()}
    runs = make_networks("ladder", networks, lambda way, seed: 70.0 + len(way), 2, [])
    runs["steps"] = ["+".join(ways[step]) for step in runs["step"]]
    runs["adopted"] = runs["step"] != "squeeze_more"
    return runs, {"design": "ladder", "steps": steps_said(list(ways)[1:])}
