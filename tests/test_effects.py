"""Effects of ablation designs against studies whose truth is known."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from ablations import FACTORS, make_ablation, make_networks, make_star, make_sweep, own_ladder, reference
from scipy import stats

from roadmap.checks import RoadmapError
from roadmap.ladders.rungs import ladder
from roadmap.results.effects import effects_table
from roadmap.results.tables import effects_of, summarize

WORTH = {"large_kernel": 1.5, "gelu": 0.25, "layer_norm": -0.5}


def additive(steps, seed):
    return 70.0 + seed / 8 + sum(WORTH[step] for step in steps)


def interacting(steps, seed):
    """Two of the steps pay only together: 2 points."""
    return additive(steps, seed) + 2 * ({"large_kernel", "layer_norm"} <= steps)


def effects(runs, ablation=None):
    return effects_table(effects_of(runs, ablation))


def by_effect(runs, ablation):
    return effects(runs, ablation).set_index("effect")


def noisy(value, seed=0, scale=0.5):
    """A value with noise of its own for every network and seed."""
    generator = np.random.default_rng(seed)
    found = {}

    def with_noise(steps, run):
        if (steps, run) not in found:
            found[steps, run] = value(steps, run) + generator.normal(0, scale)
        return found[steps, run]

    return with_noise


# --- truth is found


@pytest.mark.parametrize("design", ["leave-one-out", "one-at-a-time", "order", "factorial"])
def test_every_design_finds_what_steps_add_where_they_do_not_interact(design):
    table = by_effect(*make_ablation(design, additive))
    for step, worth in WORTH.items():
        assert table.loc[step, "estimate"] == pytest.approx(worth)
        assert table.loc[step, "low"] < worth < table.loc[step, "high"]
        assert table.loc[step, ["seeds", "failed", "missing"]].tolist() == [3, 0, 0]
        assert table.loc[step, ["gmacs", "params"]].tolist() == pytest.approx([0.01, 1000])
    assert table.index[:3].tolist() == FACTORS


def test_designs_answer_different_questions_where_steps_interact():
    def found(design):
        return by_effect(*make_ablation(design, interacting)).loc["large_kernel", "estimate"]

    assert found("one-at-a-time") == pytest.approx(1.5)
    assert found("leave-one-out") == pytest.approx(3.5)
    assert found("order") == pytest.approx(2.5)  # half of what the two are worth together
    assert found("factorial") == pytest.approx(2.5)


def test_with_many_seeds_differences_come_near_the_test_of_welch():
    """The common variance weighs as five degrees of freedom, and so little where a network has 400 seeds."""
    runs, ablation = make_ablation("leave-one-out", noisy(lambda steps, _: additive(steps, 0)), seeds=400)
    scores = {step: group["top1"].to_numpy() for step, group in runs.groupby("step")}
    for step, row in by_effect(runs, ablation).iterrows():
        test = stats.ttest_ind(scores["all"], scores[f"all but {step}"], equal_var=False)
        interval = test.confidence_interval(0.95 ** (1 / 3))
        assert row["estimate"] == pytest.approx(np.mean(scores["all"]) - np.mean(scores[f"all but {step}"]))
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high), abs=0.005)
        assert row["network"] == "all" and row["against"] == f"all but {step}"


def test_shapley_values_of_a_known_game():
    """The gloves game (Osborne & Rubinstein 1994, 295.2): one left glove, two right ones, a pair is worth 1."""
    factors = ["left", "right", "other"]
    runs, ablation = make_ablation("order", lambda steps, _: float("left" in steps and len(steps) > 1), factors)
    table = by_effect(runs, ablation)
    assert table["estimate"].tolist() == pytest.approx([4 / 6, 1 / 6, 1 / 6])
    assert table.loc["left", ["orders", "least", "greatest", "spread"]].tolist() == pytest.approx(
        [6, 0, 1, np.std([1, 1, 1, 1, 0, 0])]
    )
    assert (table["noise"] == 0).all()
    assert table[["low", "high"]].isna().all(axis=None), "seeds that all agree say nothing of the noise"


def test_all_sets_say_what_all_orders_listed_say():
    factors = ["a", "b", "c", "d"]
    value = noisy(lambda steps, _: 70 + len(steps) ** 2 + ("a" in steps))
    orders = [list(order) for order in itertools.permutations(factors)]
    for network, seeds in ((set(), ()), ({"b"}, {0, 1, 2}), ({"a", "c"}, {1})):
        runs, ablation = make_ablation("order", lacking(value, network, seeds, None), factors)
        listed, all_sets = effects(runs, ablation | {"exact": False, "orders": orders}), effects(runs, ablation)
        same = ["estimate", "orders", "seeds", "networks", "failed", "missing", "least", "greatest", "params"]
        pd.testing.assert_frame_equal(listed[same], all_sets[same])
        assert all_sets["spread"].tolist() == pytest.approx(listed["spread"].tolist())
        assert all_sets["noise"].tolist() == pytest.approx(listed["noise"].tolist())


def test_ten_steps_have_too_many_orders_to_be_listed():
    runs, ablation = make_ablation("factorial", lambda steps, seed: 60.0 + len(steps) + seed, list("abcdefghij"))
    table = effects(runs, ablation | {"design": "order", "exact": True, "orders": []})
    assert table["estimate"].tolist() == pytest.approx([1] * 10) and (table["orders"] == math.factorial(10)).all()


@pytest.mark.parametrize("orders", [1, 2, 5, 24])
def test_contributions_sum_to_the_whole_difference(orders):
    generator = np.random.default_rng(orders)
    factors = ["a", "b", "c", "d"]
    drawn = generator.permutation(np.array(list(itertools.permutations(factors))))[:orders].tolist()
    runs, ablation = make_ablation("order", noisy(lambda *_: 60), factors, orders=drawn)
    means = runs.groupby("step")["top1"].mean()
    table = effects(runs, ablation)
    assert table["estimate"].sum() == pytest.approx(means["all"] - means["modern_recipe"])
    assert table["gmacs"].sum() == pytest.approx(0.04)
    assert table["std_error"].isna().all() == (orders == 1)


def test_a_full_factorial_agrees_with_least_squares():
    value = noisy(interacting, seed=3)
    runs, ablation = make_ablation("factorial", value, seeds=2)
    table = by_effect(runs, ablation)
    words = [*itertools.combinations(FACTORS, 1), *itertools.combinations(FACTORS, 2)]
    signs = {word: [math.prod(1 if step in steps else -1 for step in word)
                    for steps in (set(row.split("+")) for row in runs["steps"])] for word in words}  # fmt: skip
    matrix = np.column_stack([np.ones(len(runs)), *signs.values()])
    solution, *_ = np.linalg.lstsq(matrix, runs["top1"].to_numpy(float), rcond=None)
    assert table["estimate"].tolist() == pytest.approx((2 * solution[1:]).tolist())
    assert table["kind"].tolist() == ["main"] * 3 + ["interaction"] * 3


def test_an_interaction_is_half_the_difference_of_effects():
    table = by_effect(*make_ablation("factorial", interacting))
    assert table.loc["large_kernel × layer_norm", "estimate"] == pytest.approx(1)  # (3.5 - 1.5) / 2
    assert table.loc[["large_kernel × gelu", "gelu × layer_norm"], "estimate"].tolist() == pytest.approx([0, 0])


def test_confounded_effects_appear_once_as_their_sum():
    """Half of the networks, by layer_norm = large_kernel × gelu (resolution III)."""
    a, b, c = FACTORS
    runs, ablation = make_ablation("factorial", interacting, settings={"fraction": "1/2"})
    table = by_effect(runs, ablation)
    assert table.index.tolist() == FACTORS
    assert table["networks"].tolist() == [4] * 3
    assert table["aliases"].tolist() == [f"+ {b} × {c}", f"+ {a} × {c}", f"+ {a} × {b}"]
    # In full: large_kernel 2.5, gelu 0.25, layer_norm 0.5, and large_kernel × layer_norm 1.
    assert table["estimate"].tolist() == pytest.approx([2.5, 1.25, 0.5])


def test_a_sweep_compares_levels_with_the_first():
    worth = {"kernel_size=3": 70.0, "kernel_size=5": 71.0, "kernel_size=7": 70.5}
    runs, ablation = make_sweep({"kernel_size": [3, 5, 7]}, noisy(lambda steps, _: worth[min(steps)]))
    means = runs.groupby("step")["top1"].mean()
    table = by_effect(runs, ablation)
    assert table.index.tolist() == ["kernel_size=5", "kernel_size=7"]
    assert table["against"].tolist() == ["kernel_size=3"] * 2
    assert table.loc["kernel_size=7", "estimate"] == pytest.approx(means["kernel_size=7"] - means["kernel_size=3"])
    assert summarize(runs, ablation)["gain"].tolist()[1:] == table["estimate"].tolist()


def test_a_grid_has_an_effect_for_every_combination_but_the_first():
    runs, ablation = make_sweep(
        {"kernel_size": [3, 5], "norm": ["batch", "layer"]},
        lambda steps, seed: 70 + ("kernel_size=5" in steps) + 2 * ("norm=layer" in steps),
        grid=True,
    )
    table = by_effect(runs[runs["step"] != "kernel_size=5 & norm=batch"], ablation)
    assert table.index.tolist() == [
        "kernel_size=3 & norm=layer",
        "kernel_size=5 & norm=batch",
        "kernel_size=5 & norm=layer",
    ]
    assert table["estimate"].fillna(0).tolist() == [2, 0, 3]
    assert table["missing"].tolist() == [0, 3, 0]


def test_flags_swept_one_at_a_time_compare_with_their_own_first_level():
    table = by_effect(*make_star())
    assert table["against"].tolist() == ["kernel_size=3", "kernel_size=3", "norm=batch"]
    assert table["estimate"].tolist() == [1, 2, 1]


def test_a_baseline_is_compared_with_every_network_and_every_reference():
    runs, ablation = make_ablation("baseline", additive, settings={"baseline": "gelu"})
    runs = pd.concat([runs, pd.DataFrame(reference("resnet18", [60.0, 61.0]))])
    table = by_effect(runs, ablation)
    assert table.index.tolist() == ["modern_recipe", "large_kernel", "layer_norm", "resnet18"]
    assert set(table["against"]) == {"gelu"}
    # The ladder adds large_kernel, gelu and layer_norm one after the other.
    assert table["estimate"].tolist() == pytest.approx([-1.75, -0.25, -0.5, 60.5 - 71.875])


def test_a_ladder_gives_its_gains():
    start = ladder().start.name
    path = [start, "modern_recipe", "stage_ratio"]
    runs = make_networks("ladder", {name: frozenset(path[1 : n + 1]) for n, name in enumerate(path)},
                         noisy(lambda steps, _: 70 + len(steps)), 3, path[1:])  # fmt: skip
    runs["steps"] = ["+".join(path[1 : path.index(step) + 1]) for step in runs["step"]]
    table, summary = by_effect(runs, {"design": "ladder"}), summarize(runs).set_index("step")
    assert table.index.tolist() == path[1:]
    assert table["estimate"].tolist() == pytest.approx(summary["gain"][1:].tolist())
    scores = {step: group["top1"].to_numpy() for step, group in runs.groupby("step")}
    gain = scores["stage_ratio"].mean() - scores["modern_recipe"].mean()
    assert table.loc["stage_ratio", "estimate"] == pytest.approx(gain)


def test_a_ladder_of_one_rung_has_no_effects_but_their_columns():
    runs = make_networks("ladder", {"resnet50": frozenset()}, additive, 2, [])
    table = effects(runs)
    assert len(table) == 0 and {"effect", "estimate", "low", "high", "gmacs"} <= set(table.columns)


# --- how often intervals hold the truth


@pytest.mark.parametrize(("orders", "interaction"), [(6, 0.5), (24, 1.0)])
def test_intervals_of_orders_cover_the_shapley_values_all_at_once(orders, interaction):
    """Of five steps drawn orders, of four all of them; the bounds are those of 40 studies whose intervals hold at once
    in 95 % at least."""
    generator = np.random.default_rng(orders)
    names = list("abcde") if orders == 6 else list("abcd")
    every = list(itertools.permutations(names))
    held = []
    for _ in range(40):
        alone = dict(zip(names, generator.normal(0, 1, len(names)), strict=True))
        pairs = {pair: generator.normal(0, interaction) for pair in itertools.combinations(names, 2)}

        def value(steps, _, alone=alone, pairs=pairs):
            together = sum(worth for pair, worth in pairs.items() if steps.issuperset(pair))
            return 70 + sum(alone[step] for step in steps) + together

        drawn = [every[index] for index in generator.permutation(len(every))[:orders]]
        drawn = None if orders == len(every) else drawn
        runs, ablation = make_ablation("order", noisy(value, int(generator.integers(2**31))), names, orders=drawn)
        truth = {step: alone[step] + sum(w for pair, w in pairs.items() if step in pair) / 2 for step in names}
        held.append(all(row["low"] <= truth[step] <= row["high"] for step, row in by_effect(runs, ablation).iterrows()))
    assert np.mean(held) >= 0.9


@pytest.mark.parametrize("design", ["leave-one-out", "one-at-a-time", "factorial"])
def test_all_intervals_hold_at_once(design):
    held = []
    for seed in range(50):
        table = by_effect(*make_ablation(design, noisy(additive, seed)))
        held.append(all(table.loc[step, "low"] <= worth <= table.loc[step, "high"] for step, worth in WORTH.items()))
    assert np.mean(held) >= 0.9  # of 50 studies, where 95 % would be promised


def test_with_one_seed_nothing_has_an_interval():
    drawn = list(itertools.permutations(FACTORS))[:4]
    for design, orders in (("order", drawn), ("order", None), ("leave-one-out", None), ("factorial", None)):
        table = by_effect(*make_ablation(design, interacting, seeds=1, orders=orders))
        assert table[["std_error", "low", "high"]].isna().all(axis=None) and not table["estimate"].isna().any()
        assert table["verdict"].isna().all()


# --- what failed and what is missing


def lacking(value, network, seeds, instead):
    return lambda steps, seed: instead if steps == frozenset(network) and seed in seeds else value(steps, seed)


@pytest.mark.parametrize(("instead", "column"), [(None, "failed"), (..., "missing")])
@pytest.mark.parametrize("design", ["leave-one-out", "one-at-a-time"])
def test_a_lost_network_takes_its_difference_alone(design, instead, column):
    network = {"large_kernel", "layer_norm"} if design == "leave-one-out" else {"gelu"}
    table = by_effect(*make_ablation(design, lacking(additive, network, {0, 1, 2}, instead)))
    assert math.isnan(table.loc["gelu", "estimate"]) and table.loc["gelu", column] == 3
    assert table.loc["large_kernel", "estimate"] == pytest.approx(1.5) and table.loc["large_kernel", column] == 0


@pytest.mark.parametrize(("instead", "column"), [(None, "failed"), (..., "missing")])
@pytest.mark.parametrize("design", ["leave-one-out", "factorial", "order"])
def test_without_the_whole_network_nothing_can_be_said(design, instead, column):
    table = by_effect(*make_ablation(design, lacking(additive, FACTORS, {0, 1, 2}, instead)))
    assert table[["estimate", "std_error", "low", "high"]].isna().all(axis=None)
    assert (table[column] == 3).all() and (table["seeds"] == 0).all()


@pytest.mark.parametrize("design", ["leave-one-out", "factorial"])
def test_a_missing_run_is_counted_and_a_failed_one_takes_the_verdict(design):
    network = frozenset({"large_kernel", "layer_norm"})
    value = noisy(additive)
    missing = by_effect(*make_ablation(design, lacking(value, network, {2}, ...))).loc["gelu"]
    failed = by_effect(*make_ablation(design, lacking(value, network, {2}, None))).loc["gelu"]
    assert missing["estimate"] == failed["estimate"]
    assert missing[["seeds", "failed"]].tolist() == [2, 0] and missing["low"] < missing["estimate"]
    assert failed[["seeds", "failed"]].tolist() == [2, 1]
    assert failed[["std_error", "low", "high"]].isna().all(), "what is left of seeds that fail is no sample"
    assert failed["verdict"] is None or pd.isna(failed["verdict"])


@pytest.mark.parametrize(("instead", "column"), [(None, "failed"), (..., "missing")])
def test_a_lost_network_takes_the_orders_through_it(instead, column):
    orders = [["large_kernel", "gelu", "layer_norm"], ["gelu", "large_kernel", "layer_norm"],
              ["layer_norm", "gelu", "large_kernel"]]  # fmt: skip
    runs, ablation = make_ablation("order", lacking(interacting, {"gelu"}, {0, 1, 2}, instead), orders=orders)
    table = by_effect(runs, ablation)
    assert (table["orders"] == 2).all() and (table[column] == 3).all() and (table["seeds"] == 3).all()
    assert table["estimate"].tolist() == pytest.approx([(1.5 + 3.5) / 2, 0.25, (1.5 - 0.5) / 2])
    one = by_effect(*make_ablation("order", lacking(interacting, {"gelu"}, {1}, instead), orders=orders))
    assert (one["orders"] == 3).all() and one["seeds"].tolist() == [2, 2, 3], "no order adds layer_norm to gelu alone"


def test_other_models_and_names_change_nothing():
    runs, ablation = make_ablation("leave-one-out", additive)
    plain = effects(runs, ablation)
    twin = runs[runs["step"] == "all"].assign(step="the same by another name")
    beside = runs[:3].assign(step="another kernel", steps="modern_recipe+kernel_9+gelu+layer_norm", top1=1.0)
    more = pd.concat([pd.DataFrame(reference("resnet18", [60.0, 61.0])), runs, twin, beside])
    pd.testing.assert_frame_equal(effects(more, ablation), plain)


# --- tables from elsewhere


def test_a_table_that_went_through_a_file_says_the_same(tmp_path):
    runs, ablation = make_ablation("one-at-a-time", noisy(additive))
    runs["steps"] = [steps.removeprefix("modern_recipe").removeprefix("+") for steps in runs["steps"]]
    runs = pd.concat([runs, pd.DataFrame(reference("resnet18", [60.0, 61.0, None]))])
    runs.to_csv(tmp_path / "runs.csv", index=False)
    again = pd.read_csv(tmp_path / "runs.csv")
    pd.testing.assert_frame_equal(effects(again, ablation), effects(runs, ablation))
    assert summarize(again, ablation)["reference"].tolist() == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"design": "lottery"}, "design is 'lottery', but must be one of ladder"),
        ({"factors": None}, "says nothing of the factors of this leave-one-out study"),
        ({"design": "order"}, "says nothing of the orders"),
        ({"design": "sweep"}, "says nothing of the levels"),
    ],
)
def test_a_design_that_is_not_described(said, message):
    runs, ablation = make_ablation("leave-one-out", additive)
    with pytest.raises(RoadmapError, match=message):
        effects(runs, ablation | said)


def test_two_runs_of_one_network_and_seed():
    runs, ablation = make_ablation("leave-one-out", additive)
    with pytest.raises(RoadmapError, match="two runs of 'all' with seed 0"):
        effects(pd.concat([runs, runs[:1]]), ablation)


# --- summaries of ladders with steps of one's own


def test_own_steps_stand_in_their_place_and_print_nothing():
    runs, ablation = own_ladder()
    runs = pd.concat([pd.DataFrame(reference("resnet18", [60.0, 61.0])), runs.sample(frac=1, random_state=0)])
    summary = summarize(runs, ablation).set_index("step")
    assert summary.index.tolist() == ["resnet50", "modern_recipe", "squeeze", "squeeze_more", "stage_ratio", "resnet18"]
    assert summary["against"].fillna("").tolist() == ["", "resnet50", "modern_recipe", "modern_recipe", "squeeze", ""]
    assert summary["reference"].tolist() == [False] * 5 + [True]
    printed = ladder()["modern_recipe"].printed.top1
    assert summary["printed_top1"].notna().tolist() == [True, True, False, False, False, False]
    assert summary.loc["modern_recipe", "printed_top1"] == printed
    assert math.isnan(summary.loc["resnet18", "gain"]) and summary.loc["resnet18", "top1_mean"] == 60.5


def test_rows_from_a_store_have_none_where_nothing_is_known():
    runs, ablation = own_ladder()
    nothing = runs.assign(match=None, match_factor=None, reference=None, adopted=None)
    assert summarize(nothing, ablation)["match_factor"].isna().all()
    old = runs.assign(step="gelu", ablation=None, steps=None, seed=range(len(runs)))
    assert summarize(old)["step"].tolist() == ["gelu"]


def test_networks_of_other_designs_have_no_gain_over_each_other():
    summary = summarize(*make_ablation("leave-one-out", additive))
    assert summary["step"].tolist() == ["all"] + [f"all but {step}" for step in FACTORS]
    assert summary["against"].isna().all() and summary["gain"].isna().all()
