"""Two studies beside each other: differences by independent oracles."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ablations import make_ablation, make_sweep
from commands import call
from scipy import stats
from test_analysis import make_runs, of_steps
from test_effects import additive, effects, noisy
from test_report import keep

from roadmap.checks import RoadmapError
from roadmap.formatting import label
from roadmap.ladders.rungs import ladder
from roadmap.results.comparison import compared, differences
from roadmap.results.study import load_study


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
        compared(*two(of_steps(["resnet50", "gelu"]), of_steps(["resnet50", "fewer_norms"])))
    sweep = make_sweep({"kernel_size": [3, 5]}, noisy(lambda *_: 70.0))
    with pytest.raises(RoadmapError, match="no step in common"):
        compared(*two(sweep, make_ablation("leave-one-out", noisy(additive))))


# --- several studies


def of_tasks(tmp_path):
    """Ladders of the three tasks, whose steps are worth the same, the same in part, and the reverse."""
    names = ladder("resnet50").names[:9]
    worth = dict(zip(names[1:], [6.0, -5.0, 4.0, -3.0, 2.5, -2.0, 7.0, -8.0], strict=True))
    folders = []
    for task, metric, factor in (("classify", "top1", 1.0), ("segment", "miou", 0.5), ("detect", "mask_ap", -1.0)):
        scores, value = {}, 50.0
        for name in names:
            value += factor * worth.get(name, 0.0)
            scores[name] = {seed: value + (seed - 1) / 20 for seed in range(3)}
        runs = make_runs(scores, task=task)
        if metric != "top1":
            runs = runs.rename(columns={"top1": metric}).assign(top1=np.nan)
        folders.append(keep(tmp_path / task, runs))
    return folders


def test_what_carries_over_to_other_tasks(tmp_path):
    folders = of_tasks(tmp_path)
    first, *others = map(load_study, folders)
    drawn = first.compare(*others)
    adopted = [one.row for one in first.measured]
    for other in others:
        theirs = {one.row["effect"]: one.row["estimate"] for one in other.measured}
        tau = stats.kendalltau(
            [row["estimate"] for row in adopted], [theirs[row["effect"]] for row in adopted]
        ).statistic
        assert f"{other.task.title} (τ {tau:+.2f})".replace("-", "−") in drawn.headline
    assert {row.name for row in drawn.rows} == {row["effect"] for row in adopted}
    gained = {one.row["effect"] for one in first.measured if one.row["verdict"] == "gain"}
    assert gained and "A gain in one and a loss in another: " in drawn.caption
    assert all(label(name) in drawn.caption for name in gained)
    shown = call("plot", folders[0], "--with", folders[1], "--with", folders[2], "--out", tmp_path / "drawn")
    assert shown.code == 0 and (tmp_path / "drawn" / "comparison.svg").is_file(), shown.err
    written = call("report", folders[0], "--no-diagrams", *(word for one in folders[1:] for word in ("--with", one)))
    page = (folders[0] / "report.html").read_text(encoding="utf-8")
    assert written.code == 0 and "Beside other studies" in page and "A gain in one and a loss in another" in page
    # of one task, of folders; and one study of another task alone
    assert "segment-again" in first.compare(first, keep_again(folders[0], "segment-again")).headline
    assert "alike in semantic segmentation (τ +1.00)" in first.compare(others[0]).headline


def test_studies_of_one_name_are_told_apart(tmp_path):
    folders = [keep(tmp_path / place / "mine", of_steps(ladder("resnet50").names)) for place in "xyz"]
    first, *others = map(load_study, folders)
    headline = first.compare(*others).headline
    assert "x/mine" in headline and "y/mine (τ +1.00)" in headline and "z/mine (τ +1.00)" in headline


def keep_again(folder, name):
    return Path(shutil.copytree(folder, folder.with_name(name)))


def test_studies_that_share_too_little_do_not_carry_over(tmp_path):
    one = keep(tmp_path / "one", of_steps(["resnet50", "gelu"]))
    other = keep(tmp_path / "other", make_runs({"resnet50": {0: 1.0}, "gelu": {0: 2.0}}, task="segment", miou=3.0))
    with pytest.raises(RoadmapError, match="share 1 effects, but ranks take at least two"):
        load_study(one).compare(other)
