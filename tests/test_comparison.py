"""Two studies beside each other: differences by independent oracles, and a figure that can be read."""

import functools
import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ablations import make_ablation, make_sweep, own_ladder, reference
from legible import check_legible
from scipy import stats
from test_analysis import make_runs
from test_effects import additive, effects, noisy
from test_trajectory_figure import HARD, of_steps

from roadmap.analysis import comparison_figure
from roadmap.analysis.comparison import compared, differences
from roadmap.analysis.comparison_figure import draw_comparison
from roadmap.analysis.tables import summarize
from roadmap.checks import RoadmapError
from roadmap.rungs import ladder


@dataclass(frozen=True, eq=False)
class Finished:
    """A study as far as a comparison asks."""

    path: Path
    runs: pd.DataFrame
    described: dict = field(default_factory=lambda: {"design": "ladder"})
    matters: float = 0.5
    rule: None = None


def two(first, second, names=("studies/first", "studies/second")):
    """Two studies of (runs, description), or of runs of ladders."""
    pairs = [one if isinstance(one, tuple) else (one, {"design": "ladder"}) for one in (first, second)]
    return tuple(
        Finished(Path(name), runs, said or {"design": "ladder"})
        for name, (runs, said) in zip(names, pairs, strict=True)
    )


def regimes(seeds=3):
    return two(*(of_steps(ladder(regime).names, regime, seeds) for regime in ("resnet50", "resnet200")))


# --- differences


def test_differences_of_gains_are_contrasts_of_both_studies():
    scores = {"resnet50": {0: 50.0, 1: 51.0, 2: 50.5}, "modern_recipe": {0: 55.0, 1: 55.2, 2: 56.1}}
    others = {"resnet200": {0: 60.0, 1: 60.3}, "modern_recipe": {0: 61.0, 1: 62.0}}
    first, second = make_runs(scores), make_runs(others, regime="resnet200")
    (row,) = differences(*compared(*two(first, second))).to_dict("records")
    one, other = (effects(runs).iloc[0] for runs in (first, second))
    assert row["effect"] == "modern_recipe"
    assert (row["first"], row["second"]) == pytest.approx((one["estimate"], other["estimate"]))
    # Two studies that share nothing are independent: Welch's formula, on errors from moderated variances.
    variances = [one["std_error"] ** 2, other["std_error"] ** 2]
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / one["freedom"] + variances[1] ** 2 / other["freedom"])
    error = np.sqrt(sum(variances))
    half = error * stats.t.ppf(0.975, freedom)
    assert (row["std_error"], row["freedom"]) == pytest.approx((error, freedom))
    assert (row["low"], row["high"]) == pytest.approx((row["difference"] - half, row["difference"] + half))
    assert (
        row["p"]
        == pytest.approx(row["p_all"])
        == pytest.approx(2 * stats.t.sf(abs(row["difference"]) / error, freedom))
    )


def test_differences_of_effects_are_judged_together():
    first = make_ablation("leave-one-out", noisy(additive))
    shifted = make_ablation("leave-one-out", noisy(lambda steps, seed: additive(steps, seed) + 5 * ("gelu" in steps)))
    table = differences(*compared(*two(first, shifted))).set_index("effect")
    ours, theirs = (effects(*study).set_index("effect")["estimate"] for study in (first, shifted))
    assert table["difference"].to_dict() == pytest.approx((theirs - ours).to_dict())
    assert (table["p_all"] >= table["p"]).all() and (table["low"] <= table["high"]).all()
    assert ((table["p_all"] < 0.05) == (table["low"] > 0) | (table["high"] < 0)).all()


def test_runs_that_both_studies_share_are_no_evidence():
    runs, facts = make_ablation("leave-one-out", noisy(additive))
    runs["signature"] = [f"{step}/{seed}" for step, seed in zip(runs["step"], runs["seed"], strict=True)]
    same = differences(*compared(*two((runs, facts), (runs, facts))))
    assert (same["difference"] == 0).all() and same[["std_error", "verdict"]].isna().all(axis=None)
    assert (same["shared"] == 6).all()
    # Of a difference of two effects that share the network with all steps, only those without the step are left.
    other, _ = make_ablation("leave-one-out", noisy(additive, seed=1))
    other["signature"] = [f"other {step}/{seed}" for step, seed in zip(other["step"], other["seed"], strict=True)]
    mixed = pd.concat([runs[runs["step"] == "all"], other[other["step"] != "all"]])
    row = differences(*compared(*two((runs, facts), (mixed, facts)))).iloc[0]
    without = [one.loc[one["step"] == "all but large_kernel", "top1"] for one in (runs, mixed)]
    assert row["difference"] == pytest.approx(without[0].mean() - without[1].mean())
    apart = differences(*compared(*two((runs, facts), (mixed.assign(signature=None), facts)))).iloc[0]
    assert row["std_error"] < apart["std_error"] and row["shared"] == 3


def test_gains_over_other_rungs_are_not_compared():
    first = of_steps(["stage_ratio", "gelu", "fewer_norms"])
    second = of_steps(["stage_ratio", "large_kernel", "gelu", "fewer_norms"])
    assert list(differences(*compared(*two(first, second)))["effect"]) == ["fewer_norms"]


def test_one_seed_gives_a_difference_without_a_verdict():
    row = differences(*compared(*regimes(seeds=1))).iloc[0]
    assert not np.isnan(row["difference"])
    assert row[["std_error", "low", "p", "verdict"]].isna().all()


def test_studies_that_share_nothing():
    with pytest.raises(RoadmapError, match="the studies 'first' and 'second' have no step in common"):
        draw_comparison(*two(of_steps(["resnet50", "gelu"]), of_steps(["resnet50", "fewer_norms"])))
    sweep = make_sweep({"size": ["size=1", "size=2"]}, noisy(lambda *_: 70.0))
    with pytest.raises(RoadmapError, match="no step in common"):
        draw_comparison(*two(sweep, make_ablation("leave-one-out", noisy(additive))))


# --- the figure


def axes_of(figure):
    return {axes.get_label(): axes for axes in figure.axes}


def drawn(axes, what):
    """Name -> (x, y, low, high) of the dots whose label begins so."""
    found = {}
    for bars in axes.containers:
        if bars.get_label().startswith(what):
            (x,), (y,) = bars.lines[0].get_data()
            ends = [end for end, _ in bars.lines[2][0].get_segments()[0]] if bars.lines[2] else [np.nan, np.nan]
            found[bars.get_label().removeprefix(what)] = (x, y, *ends)
    return found


@pytest.mark.parametrize("width", ["page", "column"])
def test_dots_are_both_tables_in_rows_of_their_union(width):
    first, second = regimes()
    figure = draw_comparison(first, second, width=width)
    panel = axes_of(figure)["comparison"]
    rows = [tick.get_text().replace("\n", " ") for tick in panel.get_yticklabels()]
    assert rows == ["ResNet-50 / ResNet-200"] + [name.replace("_", " ") for name in ladder().names[1:]]
    for study, what, shift in ((first, "first of ", -1), (second, "second of ", 1)):
        dots = drawn(panel, what)
        for row, step in enumerate(summarize(study.runs).to_dict("records")):
            x, y, low, high = dots[rows[row]]
            assert (x, low, high) == pytest.approx((step["top1_mean"], step["top1_low"], step["top1_high"]))
            assert 0 < shift * (y - row) < 0.5
    texts = [text.get_text().split("\n")[0] for text in panel.texts]
    table = differences(*compared(first, second))
    for value in table["difference"]:
        assert f"{value:+.2f}".replace("-", "−") in texts


def test_differences_have_their_panel_on_a_page():
    first, second = regimes()
    dots = drawn(axes_of(draw_comparison(first, second))["differences"], "difference of ")
    for row in differences(*compared(first, second)).to_dict("records"):
        x, _, low, high = dots[row["effect"].replace("_", " ")]
        assert (x, low, high) == pytest.approx((row["difference"], row["low"], row["high"]))
    assert "differences" not in axes_of(draw_comparison(first, second, width="column"))


def test_a_far_study_has_an_axis_of_its_own_on_which_a_point_is_as_long():
    near = of_steps(ladder().names)
    panel, second = (axes_of(draw_comparison(*two(near, near.assign(top1=near["top1"] + 25))))[name]
                     for name in ("comparison", "second"))  # fmt: skip
    spans = [high - low for low, high in (panel.get_xlim(), second.get_xlim())]
    assert spans[0] == pytest.approx(spans[1])
    assert second.get_xlim()[0] > panel.get_xlim()[1]
    assert "second" not in axes_of(draw_comparison(*two(near, near.assign(top1=near["top1"] + 3))))
    dots = drawn(second, "second of ")
    assert dots["gelu"][0] == pytest.approx(summarize(near).set_index("step").loc["gelu", "top1_mean"] + 25)


def test_rungs_of_only_one_study_stand_where_it_has_them():
    own, described = own_ladder()
    figure = draw_comparison(*two(of_steps(["resnet50", "modern_recipe", "stage_ratio", "gelu"]), (own, described)))
    rows = [tick.get_text().replace("\n", " ") for tick in axes_of(figure)["comparison"].get_yticklabels()]
    assert rows == ["ResNet-50", "modern recipe", "squeeze", "squeeze more", "stage ratio", "gelu"]


def test_the_caption_says_what_each_study_is():
    first, second = regimes()
    caption = " ".join(draw_comparison(first, second).texts[0].get_text().split())
    assert "first: ladder from ResNet-50; cifar10 at 32 px" in caption
    assert "second: ladder from ResNet-200; cifar10 at 32 px" in caption
    assert "Differences: second − first, of gains" in caption


def test_studies_of_one_name_are_told_apart():
    runs = of_steps(["resnet50", "gelu"])
    figure = draw_comparison(*two(runs, runs, ("one/study", "other/study")))
    assert figure._suptitle.get_text() == "one/study and other/study"
    assert draw_comparison(*two(runs, runs), title="mine")._suptitle.get_text() == "mine"


def pairs():
    """Pairs of studies that are hard to draw, by name."""
    every = of_steps(ladder().names)
    leave, order = make_ablation("leave-one-out", noisy(additive)), make_ablation("order", noisy(additive))
    failing = make_ablation("leave-one-out", lambda steps, seed: None if seed else additive(steps, seed))
    levels = make_sweep({"size": ["size=1", "size=2", "size=4"]}, noisy(lambda *_: 70.0))
    referenced = pd.concat([every, pd.DataFrame(reference("swin_tiny", [61.0, 61.5]) + reference("v" * 90, [61.0]))])
    return {
        "regimes": regimes(),
        "one seed": regimes(seeds=1),
        "far apart": two(every, every.assign(top1=every["top1"] + 25)),
        "other scales": two(every, every.assign(top1=every["top1"] / 3, gmacs=123.4)),
        "references in one": two(every, referenced),
        "references in both": two(referenced, referenced),
        "lost runs": two(HARD["lost runs"], every),
        "all failed": two(HARD["all failed"], every),
        "far apart seeds": two(HARD["two seeds, far apart"], every),
        "own steps": two(every, HARD["own steps"]),
        "long names": two(HARD["long names"], HARD["own steps"], ("a/" + "long name " * 9, "b/" + "W" * 70)),
        "one rung": two(of_steps(["gelu"]), of_steps(["gelu"])),
        "leave-one-outs": two(leave, leave),
        "leave-one-out and order": two(leave, order),
        "ladder and leave-one-out": two(every, leave),
        "failed effects": two(leave, failing),
        "sweeps": two(levels, levels),
        "factorials": two(*[make_ablation("factorial", noisy(additive))] * 2),
    }


PAIRS = pairs()


@pytest.mark.parametrize("name", PAIRS)
def test_every_text_can_be_read(name, monkeypatch):
    monkeypatch.setattr(comparison_figure, "compared", functools.cache(compared))  # the same tables at both widths
    for width in ("page", "column"):
        check_legible(draw_comparison(*PAIRS[name], width=width))


def test_any_two_subsets_of_the_rungs_can_be_read():
    generator = np.random.default_rng(1)
    for width, regime in itertools.product(["page", "column"], ["resnet50", "resnet200"]):
        for _ in range(2):
            steps = [generator.choice(ladder(which).names[1:], generator.integers(1, 16), replace=False)
                     for which in ("resnet50", regime)]  # fmt: skip
            runs = of_steps(steps[0]), of_steps([*steps[1], steps[0][0]], regime)
            check_legible(draw_comparison(*two(*runs), width=width))
