"""Ablation studies whose truth is known: the runs of a design, from a function of the steps in a network."""

from __future__ import annotations

import itertools

import pandas as pd

from roadmap.rungs import ladder

FACTORS = ["large_kernel", "gelu", "layer_norm"]


def make_ablation(design, value, factors=FACTORS, seeds=3, orders=None, networks=None, **said):
    """(runs, ablation) of a design. ``value``: (frozenset of steps, seed) -> top1; None for a run that failed and
    ``...`` for one that is missing. ``networks``: the subsets of a factorial, by default all."""
    everything = frozenset(factors)
    if design == "leave-one-out":
        networks = {"all": everything} | {f"all but {name}": everything - {name} for name in factors}
    elif design == "one-at-a-time":
        networks = {"base": frozenset()} | {f"only {name}": frozenset([name]) for name in factors}
    elif design == "order":
        orders = [list(order) for order in orders or itertools.permutations(factors)]
        said |= {"orders": orders}
        sets = {frozenset(order[:length]) for order in orders for length in range(len(factors) + 1)}
        networks = {name_of(steps, factors): steps for steps in sorted(sets, key=lambda one: (len(one), sorted(one)))}
    else:
        subsets = networks or [
            frozenset(s) for n in range(len(factors) + 1) for s in itertools.combinations(factors, n)
        ]
        networks = {name_of(steps, factors): steps for steps in subsets}
    ablation = {"design": design, "factors": list(factors), "base": ["modern_recipe"], "steps": steps_said(factors)}
    return make_networks(design, networks, value, seeds, ["modern_recipe", *factors]), ablation | said


def make_sweep(levels, value, seeds=3, **said):
    """(runs, ablation) of a sweep over every combination of levels, as `make_ablation`."""
    combinations = [frozenset(names) for names in itertools.product(*levels.values())]
    order = list(itertools.chain(*levels.values()))
    networks = {name_of(steps, order): steps for steps in combinations}
    ablation = {"design": "sweep", "factors": list(levels), "base": [], "steps": steps_said(order), "levels": levels}
    return make_networks("sweep", networks, value, seeds, order), ablation | said


def make_star():
    """(runs, ablation) of a sweep of two flags, one at a time: each level is worth its place in its list."""
    levels = {"size": ["size=3", "size=5", "size=7"], "norm": ["norm=batch", "norm=layer"]}
    names = [name for flag in levels.values() for name in flag]
    worth = {name: place for flag in levels.values() for place, name in enumerate(flag)}
    networks = {name: frozenset([name]) for name in names}
    runs = make_networks("sweep", networks, lambda steps, seed: 70 + seed / 8 + worth[min(steps)], 3, names)
    return runs, {"design": "sweep", "factors": list(levels), "base": [], "steps": [], "levels": levels, "grid": False}


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


def name_of(steps, order):
    return " & ".join(step for step in order if step in steps) or "none"


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
