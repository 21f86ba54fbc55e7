"""Ablation designs, asked for as a user asks: which networks they are, and what is refused."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from commands import call as command
from folders import make_image_folder
from torch.utils.flop_counter import FlopCounterMode

from roadmap.checks import RoadmapError
from roadmap.cost import measuring
from roadmap.data.sources import open_data
from roadmap.ladders.ladder import REGIMES
from roadmap.ladders.rungs import ladder_steps
from roadmap.ladders.steps import Step, compose
from roadmap.network.design import Design
from roadmap.network.model import RoadmapNet
from roadmap.planning.networks import plan_networks
from roadmap.planning.reading import load_spec
from roadmap.planning.runs import plan
from roadmap.planning.spec import StudySpec
from roadmap.questions.generators import best_generators, defining_words
from roadmap.recipes.recipe import load_recipe
from roadmap.running.preparing import prepare
from roadmap.store.store import Store

PROJECT = Path(__file__).parents[1]
ADOPTED = [step.name for step in ladder_steps() if step.adopted]
#: Every adopted step of the ladder as the flags that it sets, at base width 8 and depth 1/3 and on its own; written
#: here a second time, by hand.
BY_HAND = {
    "modern_recipe": {},
    "stage_ratio": {"blocks": (1, 1, 3, 1)},
    "patchify_stem": {"stem": "patchify"},
    "depthwise_conv": {"groups": "depthwise"},
    "increase_width": {"widths": (12, 24, 48, 96)},
    "inverted_bottleneck": {"block": "inverted"},
    "move_up_depthwise": {"spatial_position": "first"},
    "large_kernel": {"kernel_size": 7},
    "gelu": {"activation": "gelu"},
    "fewer_activations": {"fewer_activations": True},
    "fewer_norms": {"fewer_norms": True},
    "layer_norm": {"norm": "layer"},
    "separate_downsample": {"separate_downsample": True},
}


@pytest.fixture(scope="module")
def data():
    return open_data("embedded")


def start(**changes):
    return Design(
        blocks=(1, 1, 2, 1), widths=(8, 16, 32, 64), stem_stride=4, num_classes=10, stochastic_depth=0.0
    ).replace(**changes)


def by_hand(names):
    changes = {}
    for name in names:
        changes |= BY_HAND[name]
    return start(**changes)


def planned(data, **settings):
    """Name -> the run of the first seed."""
    runs = plan(load_spec(**{"seeds": 1, **settings}), data)
    return {run.step: run for run in runs}


def designs(data, **settings):
    return {name: run.design.replace(stochastic_depth=0.0) for name, run in planned(data, **settings).items()}


# --- which networks


def test_leave_one_out_is_the_end_without_each_step(data):
    runs = planned(data, design="leave-one-out")
    assert list(runs) == ["all", *(f"all but {name}" for name in ADOPTED)]
    for name, run in runs.items():
        left = name.removeprefix("all but ")
        kept = [one for one in ADOPTED if one != left]
        assert run.design.replace(stochastic_depth=0.0) == by_hand(kept), name
        assert run.steps == tuple(kept)
        assert run.recipe.name == ("quick-classic" if left == "modern_recipe" else "quick")


def test_one_at_a_time_is_the_start_with_each_step(data):
    runs = planned(data, design="one-at-a-time")
    assert list(runs) == ["resnet50", *(f"with {name}" for name in ADOPTED)]
    for name, run in runs.items():
        added = [name.removeprefix("with ")] if name != "resnet50" else []
        assert run.design.replace(stochastic_depth=0.0) == by_hand(added), name
        assert run.recipe.name == ("quick" if added == ["modern_recipe"] else "quick-classic")
    modern = planned(data, design="one-at-a-time", base="modern_recipe")
    assert list(modern) == ["modern_recipe", *(f"with {name}" for name in ADOPTED[1:])]
    assert {run.recipe.name for run in modern.values()} == {"quick"}


def test_a_base_gives_up_the_steps_that_the_ablation_is_about(data):
    found = designs(data, design="factorial", base="end", steps="gelu,layer_norm")
    kept = [name for name in ADOPTED if name not in ("gelu", "layer_norm")]
    assert found == {
        "none of them": by_hand(kept),
        "with layer_norm": by_hand([*kept, "layer_norm"]),
        "with gelu": by_hand([*kept, "gelu"]),
        "all": by_hand(ADOPTED),
    }
    first = ADOPTED[: ADOPTED.index("depthwise_conv") + 1]
    assert designs(data, design="leave-one-out", upto="depthwise_conv", steps="stage_ratio,gelu") == {
        "all": by_hand([*first, "gelu"]),
        "all but stage_ratio": by_hand([*(name for name in first if name != "stage_ratio"), "gelu"]),
        "all but gelu": by_hand(first),
    }


@pytest.mark.parametrize("regime", REGIMES)
def test_networks_do_not_depend_on_the_order_of_steps(regime):
    base = Design(blocks=REGIMES[regime].start_blocks)
    steps = [step for step in ladder_steps(regime) if step.adopted]
    generator = np.random.default_rng(0)
    for width, depth in ((64, 1.0), (16, 1 / 3), (10, 0.5)):
        for size in (2, 5, 9, len(steps)):
            chosen = [steps[place] for place in generator.permutation(len(steps))[:size]]
            made = {compose(base, [chosen[i] for i in generator.permutation(size)], width, depth) for _ in range(5)}
            assert len(made) == 1


def test_the_wider_regime_multiplies_widths_exactly():
    """84/64 and 128/84 are the steps' factors; the second alone makes 64 * 128/84 = 97.5, half rounded up."""
    steps = {step.name: step for step in ladder_steps("resnet200")}
    base = Design(blocks=(3, 24, 36, 3))
    assert compose(base, [steps["stage_ratio"]]).widths[0] == 84
    assert compose(base, [steps["increase_width"]]).widths == (98, 196, 392, 784)
    assert compose(base, [steps["increase_width"], steps["stage_ratio"]]).widths[0] == 128
    assert Fraction(128, 84) * 64 == Fraction(2048, 21)


# --- orders


@pytest.mark.parametrize(("orders", "seed"), [(1, 0), (3, 0), (8, 1), (30, 5)])
def test_orders_share_the_runs_of_their_prefixes(data, orders, seed):
    spec = load_spec(design="order", orders=orders, order_seed=seed, seeds=2)
    facts = plan_networks(spec).facts
    assert len(facts["orders"]) == orders and all(sorted(one) == sorted(ADOPTED) for one in facts["orders"])
    naive = [frozenset(one[:length]) for one in facts["orders"] for length in range(len(ADOPTED) + 1)]
    runs = plan(spec, data)
    assert {frozenset(run.steps) for run in runs} == set(naive)
    assert len(runs) == 2 * len(set(naive)) < 2 * len(naive) + (orders == 1)
    assert len({run.signature for run in runs}) == len(runs)
    said = plan_networks(spec).remarks[-1]
    assert f"{len(set(naive))} different networks" in said and f"would be {len(naive)}" in said
    assert plan_networks(load_spec(design="order", orders=orders, order_seed=seed)).facts == facts
    assert plan_networks(load_spec(design="order", orders=orders, order_seed=seed + 1)).facts != facts


def test_every_step_is_drawn_as_often_at_every_place():
    facts = plan_networks(
        load_spec(design="order", orders=2000, steps="gelu,layer_norm,stage_ratio,large_kernel")
    ).facts
    assert facts["exact"] and facts["orders"] == []  # so many orders pass through every set
    facts = plan_networks(load_spec(design="order", orders=600, order_seed=3)).facts
    counts = Counter((name, place) for one in facts["orders"] for place, name in enumerate(one))
    expected = 600 / len(ADOPTED)
    chi_squared = sum((counts[name, place] - expected) ** 2 / expected
                      for name in ADOPTED for place in range(len(ADOPTED)))  # fmt: skip
    assert chi_squared < 144 + 5 * math.sqrt(2 * 144)


def test_all_orders_are_all_subsets(data):
    runs = planned(data, design="order", orders="all", base="modern_recipe", steps="gelu,layer_norm,large_kernel")
    found = {frozenset(run.steps) - {"modern_recipe"} for run in runs.values()}
    names = ("gelu", "layer_norm", "large_kernel")
    assert found == {frozenset(c) for size in range(4) for c in itertools.combinations(names, size)}
    assert len(runs) == 8


# --- factorials


def signs_of(facts, runs):
    """Networks x factors, +1 where a factor is in."""
    return np.array([[1 if name in run.steps else -1 for name in facts["factors"]] for run in runs])


@pytest.mark.parametrize(
    ("count", "fraction", "resolution"),
    # Box, Hunter & Hunter, Statistics for Experimenters, 2nd edition, Table 6.22
    [(3, "1/2", 3), (4, "1/2", 4), (5, "1/2", 5), (6, "1/2", 6), (5, "1/4", 3), (6, "1/4", 4), (7, "1/4", 4),
     (8, "1/4", 5), (6, "1/8", 3), (7, "1/8", 4), (8, "1/8", 4), (7, "1/16", 3), (8, "1/16", 4), (9, "1/16", 4)],
)  # fmt: skip
def test_fractions_have_the_printed_resolution_and_say_what_they_mix_up(data, count, fraction, resolution):
    spec = load_spec(design="factorial", base="end", steps=",".join(ADOPTED[1 : count + 1]), fraction=fraction, seeds=1)
    facts = plan_networks(spec).facts
    signs = signs_of(facts, plan(spec, data))
    assert len(signs) == 2**count * Fraction(fraction)
    assert (signs.T @ signs == len(signs) * np.eye(count)).all()  # balanced, and main effects apart
    assert facts["resolution"] == resolution
    # Which products of columns are equal is what cannot be told apart: found here by looking at the columns.
    columns = {}
    for size in (1, 2, 3):
        for places in itertools.combinations(range(count), size):
            columns.setdefault(signs[:, list(places)].prod(1).tobytes(), []).append(
                frozenset(facts["factors"][place] for place in places)
            )
    mixed = {frozenset(group) for group in columns.values() if len(group) > 1 and min(map(len, group)) < 3}
    assert {frozenset(frozenset(effect) for effect in group) for group in facts["aliases"]} == mixed


def test_the_best_of_two_fractions_of_one_resolution_has_fewer_short_words():
    """The 2^(7-2) fraction of minimum aberration has one word of four letters and two of five (Fries & Hunter 1980)."""
    lengths = sorted(len(word) for word in defining_words(5, best_generators(5, 2)))
    assert lengths == [4, 5, 5]


def test_a_full_factorial_has_every_combination(data):
    runs = planned(data, design="factorial", steps="gelu,layer_norm,fewer_norms")
    assert len({run.steps for run in runs.values()}) == len(runs) == 8


# --- sweeps, own steps, recipes


def test_sweeps_of_flags_and_of_the_training(data):
    kernels = designs(data, sweep={"kernel_size": [3, 7, 31]})
    end = by_hand(ADOPTED)
    assert kernels == {f"kernel_size={k}": end.replace(kernel_size=k) for k in (3, 7, 31)}
    groups = designs(data, sweep=["groups=1,4,depthwise"], base="modern_recipe")
    assert groups == {f"groups={g}": start(groups=g) for g in (1, 4, "depthwise")}
    ratios = designs(data, sweep="blocks=3-4-6-3,3-3-9-3", base="start")
    assert ratios == {"blocks=3-4-6-3": start(), "blocks=3-3-9-3": start(blocks=(1, 1, 3, 1))}
    widths = designs(data, sweep="width_factor=0.5,1,1.5", base="start")
    assert [one.widths[0] for one in widths.values()] == [4, 8, 12]
    grid = designs(data, sweep=["kernel_size=3,5", "expansion=2,4"], grid=True)
    assert grid == {
        f"kernel_size={k} & expansion={e}": end.replace(kernel_size=k, expansion=e) for k in (3, 5) for e in (2, 4)
    }
    training = planned(data, sweep=["mixup=0,0.8", "optimizer=sgd,adamw", "lr=1e-3,0.01"])
    assert [run.recipe.mixup for run in training.values()][:2] == [0.0, 0.8]
    assert training["optimizer=sgd"].recipe.optimizer == "sgd"
    assert training["lr=0.001"].recipe.peak_lr == pytest.approx(1e-3) and training["lr=0.01"].recipe.peak_lr == 0.01


OWN = """
design: one-at-a-time
base: end
steps:
  - name: tiny_kernel
    why: To see what seven pixels bring.
    kernel_size: 3
  - name: no_mixing
    mixup: 0
    label_smoothing: 0.0
  - name: averaged
    ema: 0.99
  - {name: slow, optimizer: sgd, lr: 4e-2}
  - {name: classic, recipe: quick-classic}
  - name: old_micro
    steps: [kernel_5]
    activation: relu
    width_factor: 1.5
  - {name: with_grn, layers: {grn: {eps: 0.001}}}
  - grn
seeds: 1
"""


def test_own_steps_in_a_study_file(data, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    spec = load_spec(path)
    runs = {run.step.removeprefix("with "): run for run in plan(spec, data)}
    end = runs["separate_downsample"].design
    assert runs["tiny_kernel"].design == end.replace(kernel_size=3)
    assert (runs["no_mixing"].recipe.mixup, runs["no_mixing"].recipe.label_smoothing) == (0, 0)
    assert runs["averaged"].recipe.ema == 0.99 and runs["averaged"].design == end
    assert (runs["slow"].recipe.optimizer, runs["slow"].recipe.peak_lr) == ("sgd", 0.04)
    assert runs["classic"].recipe.optimizer == load_recipe("quick-classic").optimizer
    assert runs["old_micro"].design == end.replace(kernel_size=5, activation="relu", widths=(18, 36, 72, 144))
    assert runs["with_grn"].design.layers == (("grn", (("eps", 0.001),)),)
    assert runs["grn"].design.layers == (("grn", ()),) and runs["grn"].plugins == {}
    listed = {step["name"]: step for step in plan_networks(spec).facts["steps"]}
    assert listed["tiny_kernel"]["why"] == "To see what seven pixels bring."
    assert listed["slow"]["change"] == "optimizer sgd, lr 0.04"


def test_recipe_and_network_interact_in_one_factorial(data):
    steps = [{"name": "averaged", "ema": 0.9}, "layer_norm"]
    runs = planned(data, design="factorial", base="modern_recipe", steps=steps)
    assert [(run.recipe.ema, run.design.norm) for run in runs.values()] == [
        (None, "batch"), (None, "layer"), (0.9, "batch"), (0.9, "layer")
    ]  # fmt: skip


def test_a_ladder_of_own_steps_goes_on_behind_the_papers(data):
    runs = planned(data, steps=["ladder", "grn", {"name": "wider", "width_factor": 2}], from_="layer_norm")
    assert list(runs) == ["layer_norm", "separate_downsample", "grn", "wider"]
    assert runs["wider"].steps == (*ADOPTED, "grn", "wider")
    assert runs["wider"].design.widths == (24, 48, 96, 192) and runs["wider"].design.layers
    mixed = planned(data, steps="large_kernel,kernel_9,gelu,modern_recipe")
    assert list(mixed) == ["resnet50", "large_kernel", "kernel_9", "gelu", "modern_recipe"]
    assert [run.design.kernel_size for run in mixed.values()] == [3, 7, 9, 7, 7]
    assert mixed["kernel_9"].steps == ("kernel_9",) and mixed["gelu"].steps == ("large_kernel", "gelu")


def test_a_group_does_what_its_steps_do(data):
    group = [{"name": "a", "steps": ["increase_width", "grn"], "width_factor": 2, "layers": ["se"], "mixup": 0.1}]
    run = planned(data, steps=group)["a"]
    assert run.design.widths[0] == 24 and run.design.layers == (("grn", ()), ("se", ())) and run.recipe.mixup == 0.1


def test_a_road_not_taken_replaces_what_answers_the_same_question(data):
    runs = planned(data, recipe="modern", steps=[
        "modern_recipe", "grn", {"name": "w", "width_factor": 2}, {"name": "soft", "mixup": 0.1},
        {"name": "calm", "mixup": 0.0, "adopted": False}, {"name": "v", "width_factor": 3, "adopted": False},
        {"name": "attention", "layers": ["se"], "adopted": False}, "gelu"])  # fmt: skip
    assert runs["calm"].steps == ("modern_recipe", "grn", "w", "calm") and runs["calm"].recipe.name == "modern"
    assert runs["v"].steps == ("modern_recipe", "grn", "w", "soft", "v") and runs["v"].design.widths[0] == 48
    assert runs["attention"].design.layers == (("grn", ()), ("se", ()))
    assert runs["gelu"].steps == ("modern_recipe", "grn", "w", "soft", "gelu")
    ladder = planned(data, base="kernel_9", steps="gelu")
    assert list(ladder) == ["kernel_9", "gelu"] and ladder["gelu"].design.kernel_size == 9


def test_levels_mean_what_they_say(data):
    widths = designs(data, sweep="widths=64-128-256-512,96-192-384-768")
    assert [one.widths for one in widths.values()] == [(8, 16, 32, 64), (12, 24, 48, 96)]
    layers = designs(data, sweep={"layers": [["se"], {"se": {"ratio": 0.25}}, []]}, base="start")
    assert list(layers) == ["layers=se", "layers=se-ratio-0.25", "layers=none"]
    betas = planned(data, sweep="betas=0.9:0.99,0.8:0.99")
    assert [run.recipe.betas for run in betas.values()] == [(0.9, 0.99), (0.8, 0.99)]


def test_the_best_fractions_of_many_steps_are_found():
    """Word lengths from three on: of 2^(9-3) and 2^(10-5) the best there are; 2^(12-4) has resolution VI."""
    for basic, spare, best in ((6, 3, (0, 1, 4, 2)), (5, 5, (0, 10, 16, 0, 0, 5)), (6, 4, (0, 2, 8, 4, 0, 1))):
        counts = Counter(len(word) for word in defining_words(basic, best_generators(basic, spare)))
        assert tuple(counts[length] for length in range(3, 3 + len(best))) == best
    assert min(map(len, defining_words(8, best_generators(8, 4)))) == 6


def test_a_plug_in_that_replaces_what_a_step_sets_is_told(tmp_path):
    done = command(*"run --dry-run --seeds 1 --design leave-one-out --steps ladder,resnet_d_stem".split())
    assert done.code == 2 and "'all but patchify_stem'" in done.err or "'all' would be the same training" in done.err
    assert "patchify_stem" in done.err and "a layer stands in its place" in done.err
    spec = load_spec(
        sweep={
            "layers": [["se"], {"se": {"ratio": 1 / 16}}],
        },
        base="start",
        seeds=1,
    )
    assert len(prepare(spec, Store(tmp_path / "store")).trainings) == 1


def test_two_names_of_one_network_are_one_run(data, tmp_path):
    spec = load_spec(sweep=["kernel_size=3,7", "activation=relu,gelu"], seeds=2)
    prepared = prepare(spec, Store(tmp_path / "store"))
    assert (len(prepared.runs), len(prepared.trainings)) == (8, 6)
    same = [run for run in prepared.runs if run.step in ("kernel_size=7", "activation=gelu")]
    assert len({run.signature for run in same}) == 2
    done = command("run", "--dry-run", "--sweep", "kernel_size=3,7", "--sweep", "activation=relu,gelu", "--seeds", "2")
    assert "6 runs," in done.out


# --- matched cost


@pytest.mark.parametrize("kind", ["gmacs", "params"])
def test_matched_networks_cost_what_the_start_costs(data, tmp_path, kind):
    spec = load_spec(design="one-at-a-time", base="modern_recipe", match=kind, seeds=1,
                     steps="stage_ratio,depthwise_conv,inverted_bottleneck,separate_downsample", width=16)  # fmt: skip
    prepared = prepare(spec, Store(tmp_path / "store"))
    costs = {}
    for run in prepared.runs:
        network = RoadmapNet(run.design).eval()
        costs[run.step] = sum(parameter.numel() for parameter in network.parameters())
        if kind == "gmacs":
            with FlopCounterMode(display=False) as counter:
                network(data_images())
            costs[run.step] = counter.get_total_flops() / 2
        assert run.match == f"{kind} by width"
    assert prepared.runs[0].match_factor == 1.0
    for name, cost in costs.items():
        assert cost == pytest.approx(costs["modern_recipe"], rel=0.05), name
    assert len({run.match_factor for run in prepared.runs}) == 5


def data_images():
    import torch

    return torch.zeros(1, 3, 32, 32)


def test_matching_undoes_a_step_that_only_widens():
    done = command(*"run --dry-run --upto increase_width --match gmacs --seeds 2".split())
    assert done.code == 0 and "10 runs" in done.out
    assert "increase_width is the same training as depthwise_conv: one run" in done.err


def test_matching_excuses_no_step_that_changes_nothing(tmp_path):
    steps = ["gelu", {"name": "nothing", "kernel_size": 3}]
    with pytest.raises(RoadmapError, match="'with nothing' would be the same training as 'resnet50'"):
        prepare(load_spec(design="one-at-a-time", match="gmacs", steps=steps, seeds=1), Store(tmp_path / "store"))


def test_times_that_a_match_measured_are_kept(tmp_path, monkeypatch):
    asked_for = []

    def seconds(design, *how):
        """What this machine takes, other work on it included, for an image."""
        asked_for.append(design)
        return sum(design.widths) ** 0.7 * (1 + len(asked_for) % 3 / 50)

    monkeypatch.setattr(measuring, "training_seconds", seconds)
    asked = "plan --design one-at-a-time --base modern_recipe --steps inverted_bottleneck --match time --seeds 1"
    words = (*asked.split(), "--threads", "1", "--store", tmp_path / "store", "--json")
    first = json.loads(command(*words).out)
    measured_once = len(asked_for)
    second = json.loads(command(*words).out)
    assert measured_once == len(asked_for) >= 6, "three times each, of two designs at least; then no more"
    assert [run["signature"] for run in first["schedule"]] == [run["signature"] for run in second["schedule"]]
    measured = json.loads((tmp_path / "store" / "measured.json").read_text())["measured"]
    assert sum("time" in fact for fact in measured.values()) >= 2


# --- what is refused


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"design": "leave-two-out"}, "did you mean 'leave-one-out'"),
        ({"design": "order", "steps": "kernel_5,large_kernel"}, "'kernel_5' and 'large_kernel' both set kernel_size"),
        ({"design": "order", "steps": "gelu"}, "at least two steps"),
        ({"design": "order", "orders": 0}, "orders is '0'"),
        ({"design": "factorial", "steps": "gelu,gelu"}, "names 'gelu' twice"),
        ({"design": "factorial", "steps": "gelu,layer_norm", "fraction": "1/4"}, "cannot be cut to 1/4"),
        ({"design": "factorial", "steps": "gelu,layer_norm", "fraction": "1/3"}, "fraction is '1/3'"),
        ({"fraction": "1/2"}, "--fraction is for --design factorial, but the design is ladder"),
        ({"design": "leave-one-out", "only": "gelu"}, "--only is for --design ladder"),
        ({"design": "sweep"}, "a sweep needs its levels"),
        ({"sweep": "kernel=3"}, "did you mean 'kernel_size'"),
        ({"sweep": "kernel_size"}, "must be like kernel_size=3,5,7"),
        ({"sweep": {"kernel_size": 3}}, "must be a list of its levels"),
        ({"sweep": {"kernel_size": [3]}, "steps": "gelu"}, "--steps is for --design"),
        ({"base": "modern_recipe"}, "--base is what --steps are added to"),
        ({"base": "nowhere", "steps": "gelu"}, "unknown step 'nowhere'"),
        ({"steps": "gelo"}, "did you mean 'gelu'"),
        ({"steps": [{"kernel_size": 3}]}, "a step has no name"),
        ({"steps": [{"name": "x"}]}, "step 'x' changes nothing"),
        ({"steps": [{"name": "x", "kernel": 3}]}, "did you mean 'kernel_size'"),
        ({"steps": [{"name": "gelu", "kernel_size": 3}]}, "there is a step 'gelu' already"),
        ({"steps": [{"name": "a b", "kernel_size": 3}]}, "the name of a step is 'a b'"),
        ({"steps": [{"name": "x", "width_factor": -1}]}, "width_factor of step 'x' is -1"),
        ({"steps": [{"name": "x", "num_classes": 3}]}, "unknown setting of step 'x' 'num_classes'"),
        ({"steps": [{"name": "x", "steps": ["gelo"]}]}, "did you mean 'gelu'"),
        ({"steps": 3}, "steps is 3"),
        ({"steps": [{"name": "a", "kernel_size": 5}, {"name": "a", "kernel_size": 9}]}, "steps names 'a' twice"),
        ({"steps": [{"name": "resnet50", "kernel_size": 9}]}, "there is a step 'resnet50' already"),
        ({"steps": [{"name": "se", "activation": "gelu"}]}, "there is a step 'se' already"),
        ({"steps": [{"name": "a", "steps": ["large_kernel", "kernel_9"]}]}, "step 'a': 'large_kernel' and 'kernel_9'"),
        ({"steps": [{"name": "a", "layers": 3}]}, "layers is 3"),
        ({"steps": [{"name": "a", "layers": {"se": 3}}]}, "the options of the layer 'se' are 3"),
        ({"steps": [{"name": "a", "layers": [["se"]]}]}, "layers holds ['se']"),
        ({"steps": "gelu,gelu"}, "steps names 'gelu' twice"),
        ({"design": "factorial", "steps": "gelu"}, "a factorial needs at least two steps"),
        ({"design": "order", "steps": ["increase_width", {"name": "w", "widths": [8, 8, 8, 8]}]},
         "'w' sets the widths that 'increase_width' multiplies"),
        ({"sweep": ["widths=8-8-8-8", "widths=9-9-9-9"]}, "sweep names widths twice"),
        ({"sweep": "kernel_size=3,3"}, "the level kernel_size=3 twice"),
        ({"reference": [""]}, "reference is empty: give"),
        ({"match": "flops"}, "match is 'flops'"),
        ({"match_by": "depth"}, "add --match"),
        ({"only": "gelu", "steps": "gelu"}, "use one or the other"),
        ({"start_from": "3f2a", "design": "order"}, "trains one network"),
        ({"plugin": "nowhere.py"}, "/nowhere.py'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_one_sentence(settings, sentence):
    with pytest.raises(RoadmapError) as error:
        plan_networks(load_spec(**settings))
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"design": "leave-one-out", "depth": 0.1}, "would be the same training as"),
        ({"design": "factorial", "steps": "stage_ratio,gelu", "depth": 0.1}, "leave stage_ratio out"),
        ({"design": "order", "recipe": "finetune-1k", "steps": "modern_recipe,gelu"}, "has no classic twin"),
        ({"steps": "resnext_32x4d"}, "resnext_32x4d: groups 32 does not divide"),
        ({"sweep": "kernel_size=4"}, "kernel_size=4: kernel_size is 4, but must be odd"),
        ({"sweep": "kernel_size=big"}, "kernel_size is 'big', but must be a whole number"),
        ({"sweep": "recipe=nosuch"}, "unknown recipe 'nosuch'"),
        ({"steps": [{"name": "a", "widths": []}]}, "a: widths is (), but must be a list"),
        ({"steps": [{"name": "a", "widths": [True] * 4}]}, "a: widths is True"),
        ({"steps": [{"name": "a", "stem_width": True}]}, "a: stem_width is True"),
        (
            {
                "design": "factorial",
                "fraction": "1/2",
                "steps": ["gelu", "layer_norm", "fewer_norms", {"name": "nothing", "kernel_size": 3}],
            },
            "leave nothing out or change that",
        ),
    ],
)
def test_what_would_change_nothing_or_cannot_be_built_is_told(data, settings, sentence):
    with pytest.raises(RoadmapError) as error:
        plan(load_spec(**settings), data)
    assert sentence in str(error.value)


def test_a_step_is_a_value():
    step = Step("wide", changes={"width_factor": 1.5}, training={"mixup": 0.2})
    assert step.change == "width_factor 1.5, mixup 0.2"
    assert Step.from_mapping({"name": "wide", "width_factor": 1.5, "mixup": 0.2}) == step
    assert plan_networks(StudySpec(steps=({"name": "wide", "width_factor": 2},))).networks[-1].name == "wide"


# --- from the command line to the table


PLUGIN = """
from torch import nn
import roadmap

@roadmap.layer("dropped_channels", place="hidden", why="To see whether fewer channels do.")
def build(site, share=0.5):
    return nn.Dropout2d(share)
"""


def test_a_study_with_a_plug_in_from_end_to_end(tmp_path):
    images = make_image_folder(tmp_path / "images")
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN)
    asked = "--design leave-one-out --upto stage_ratio --steps stage_ratio,dropped_channels --seeds 2 --epochs 1"
    words = ["run", *asked.split(), "--plugin", plugin, "--data", "folder", "--data-dir", images, "--width", "8",
             "--threads", "1", "--batch-size", "12", "--store", tmp_path / "store",
             "--out", tmp_path / "study"]  # fmt: skip
    done = command(*words)
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "study" / "trajectory.csv", keep_default_na=False)
    assert table["steps"].tolist() == [
        # two effects: the network that both are compared with has 2 * sqrt(2) seeds
        *["modern_recipe+stage_ratio+dropped_channels"] * 3,
        *["modern_recipe+dropped_channels"] * 2, *["modern_recipe+stage_ratio"] * 2,
    ]  # fmt: skip
    assert set(table["ablation"]) == {"leave-one-out"} and (table["status"] == "done").all()
    content = json.loads((tmp_path / "study" / "study.json").read_text())
    assert content["ablation"]["factors"] == ["stage_ratio", "dropped_channels"]
    run = table["signature"][0]
    shown = [command("eval", run, "--store", tmp_path / "store", *more) for more in ((), ("--plugin", plugin))]
    assert shown[1].code == 0 and f"{table['top1'][0]:.2f}" in shown[1].out
    made = command("reproduce", run, "--store", tmp_path / "store", "--plugin", plugin)
    assert made.code == 0 and "equal bit for bit" in made.out, made.err
    plugin.write_text(PLUGIN.replace("0.5", "0.25"))
    made = command("reproduce", run, "--store", tmp_path / "store", "--plugin", plugin)
    assert made.code == 2 and "is not the one that run" in made.err
    again = json.loads(command("plan", *words[1:], "--json").out)
    assert (again["runs"], again["in_store"]) == (7, 2)  # what the file says has changed, and so have its runs


# --- what the pages say


def test_the_example_of_own_steps_is_refused_as_the_page_says(data):
    page = (PROJECT / "docs" / "steps.md").read_text()
    content = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    with pytest.raises(RoadmapError, match="'large_kernel' and 'wide_kernel' both set kernel_size"):
        plan_networks(load_spec(**content))
    content["steps"] = [step for step in content["steps"] if step == "ladder" or "kernel_size" not in step]
    content["steps"] = content["steps"][1:]
    assert "'all but micro': it is so already" in str(refused(data, {**content, "steps": content["steps"][-1:] * 1}))
    content["steps"] = content["steps"][:-1]
    assert "has these settings already" in str(refused(data, content))
    runs = planned(data, **content, recipe="modern")
    assert len(runs) == 5 and runs["all but calm"].recipe.mixup > 0 == runs["all"].recipe.mixup
    assert runs["all"].design.layers == (("grn", ()), ("se", (("ratio", 0.25),)))


def refused(data, content):
    with pytest.raises(RoadmapError) as error:
        plan(load_spec(**content, seeds=1), data)
    return error.value


def test_check_step_tells_good_from_bad(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        PLUGIN.replace("nn.Dropout2d(share)", "nn.Conv2d(site.incoming, site.outgoing, 3)").replace(
            "dropped_", "wrong_"
        )
    )
    study = tmp_path / "mine.yaml"
    study.write_text("steps: [{name: tiny, kernel_size: 1}, {name: even, kernel_size: 4}, {name: calm, mixup: 0}]\n")
    shown = command("check-step", "wrong_channels", "--plugin", plugin)
    assert shown.code == 1 and "wrong_channels: FAILED (+ wrong_channels)" in shown.out
    assert "shape" in shown.out and "1 of 1 step failed" in shown.err
    shown = command("check-step", "--study", study)
    assert shown.code == 1 and "tiny: ok" in shown.out and "even: FAILED" in shown.out and "calm: ok" in shown.out
    assert "kernel_size is 4, but must be odd" in shown.out
    assert command("check-step", "gelo").err.startswith("roadmap: unknown step 'gelo' (did you mean 'gelu'?)")
