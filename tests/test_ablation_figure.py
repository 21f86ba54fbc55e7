"""Figures of ablation designs by what they show, and studies of every design from folder to files."""

import itertools
import json
import math

import pandas as pd
import pytest
from ablations import FACTORS, make_ablation, make_star, make_sweep, own_ladder, reference
from legible import check_legible
from roadmap.analysis.ablation import effects
from test_effects import additive, interacting, lacking, noisy

import roadmap
from roadmap.analysis.effects_figure import draw_ablation
from roadmap.analysis.figure import draw_trajectory
from roadmap.analysis.study import Study, load_study, save_results
from roadmap.checks import RoadmapError
from roadmap.look import MAX_STRETCH
from roadmap.rungs import ladder
from roadmap.study.folder import FORMAT

LONG = "timm/convnext_xxlarge.clip_laion2b_soup_ft_in12k_in1k_and_a_name_that_goes_on"
ADOPTED = [rung.name for rung in ladder() if rung.adopted][2:]
KERNELS = [f"kernel_size={size}" for size in (3, 5, 7, 9, 11, 31)]


def with_references(runs):
    return pd.concat([runs, pd.DataFrame(reference("resnet18", [71.0, 72.5]) + reference(LONG, [71.1, None]))])


def axes_of(figure):
    return {axes.get_label(): axes for axes in figure.axes}


def drawn(axes, what):
    """Name -> x values of the lines whose label begins so."""
    lines = [*axes.get_lines(), *(bars.lines[0] for bars in axes.containers if hasattr(bars, "lines"))]
    labels = {line: line.get_label() for line in axes.get_lines()}
    labels |= {bars.lines[0]: bars.get_label() for bars in axes.containers if hasattr(bars, "lines")}
    return {labels[line].removeprefix(what): list(line.get_xdata()) for line in lines if labels[line].startswith(what)}


def orders_of(factors, count):
    return [factors[start:] + factors[:start] for start in range(count)]


def studies():
    """Studies that are hard to draw, by name."""

    def many(steps, _):
        return 70.0 + sum((ADOPTED.index(step) - 5) / 3 for step in steps)

    all_but = frozenset(ADOPTED)
    lost = lacking(lacking(noisy(many), all_but - {"gelu"}, {0, 1, 2}, None), all_but - {"stage_ratio"}, {1}, ...)
    names = ["a step whose name is long and goes on and on", "another_step_that_has_a_name_without_spaces", "x"]
    said = [{"name": name, "change": "a change, described in many words, that no row has room for " * 2, "why": "",
             "section": "", "adopted": True} for name in names]  # fmt: skip
    worth = dict(zip(names, (1.0, -2.0, 30.0), strict=True))
    half = [frozenset(s) for n in (1, 3, 5) for s in itertools.combinations(ADOPTED[:5], n)]
    words = [*itertools.combinations(ADOPTED[:5], 1), *itertools.combinations(ADOPTED[:5], 2)]
    aliases = [[list(word), [step for step in ADOPTED[:5] if step not in word]] for word in words]
    kernels = noisy(lambda steps, _: 70 - abs(sum(KERNELS.index(s) for s in steps if s in KERNELS) - 2))
    grid = {"kernel_size": KERNELS, "a rather long factor": [f"a rather long factor=level {n}" for n in "abcdefg"]}
    wide = {"lr": [f"lr={n / 1000}" for n in range(1, 14)]}
    three = {"kernel_size": KERNELS[:2], "norm": ["norm=batch", "norm=layer"], "act": ["act=gelu", "act=relu"]}
    return {
        "leave-one-out, 12 steps, lost runs": make_ablation("leave-one-out", lost, ADOPTED),
        "leave-one-out, nothing there": make_ablation("leave-one-out", lacking(additive, FACTORS, range(3), None)),
        "one-at-a-time, one step": make_ablation("one-at-a-time", noisy(additive), ["gelu"]),
        "one-at-a-time, one seed": make_ablation("one-at-a-time", noisy(additive), seeds=1),
        "one-at-a-time, two seeds": make_ablation("one-at-a-time", noisy(additive), seeds=2),
        "one-at-a-time, long names": make_ablation(
            "one-at-a-time", noisy(lambda steps, _: 60 + sum(worth[s] for s in steps)), names, steps=said
        ),
        "order, 12 steps": make_ablation("order", noisy(many), ADOPTED, orders=orders_of(ADOPTED, 6)),
        "order, a run failed": make_ablation("order", lacking(noisy(interacting), {"gelu"}, {1}, None)),
        "order, exact": make_ablation("order", noisy(interacting), exact=True),
        "order, nothing there": make_ablation("order", lacking(additive, FACTORS, range(3), ...)),
        "factorial": make_ablation("factorial", noisy(interacting)),
        "factorial, fraction": make_ablation("factorial", noisy(many), ADOPTED[:5], networks=half, fraction="1/2",
                                             aliases=aliases),
        "sweep": make_sweep({"kernel_size": KERNELS}, kernels, base_level=KERNELS[2]),
        "sweep, level failed": make_sweep({"kernel_size": KERNELS}, lacking(kernels, KERNELS[-1:], {0, 1, 2}, None)),
        "sweep, run failed": make_sweep({"kernel_size": KERNELS}, lacking(kernels, KERNELS[:1], {1}, None)),
        "sweep, one seed": make_sweep({"kernel_size": KERNELS}, kernels, seeds=1),
        "sweep, 13 levels": make_sweep(wide, noisy(lambda steps, _: 70.0)),
        "sweep, words": make_sweep({"act": ["act=relu", "act=gelu", "act=silu"]}, noisy(lambda *_: 70.0)),
        "grid": make_sweep(grid, lacking(kernels, [KERNELS[0], "a rather long factor=level b"], {0, 1, 2}, None)),
        "grid, run missing": make_sweep(grid, lacking(kernels, [KERNELS[0], "a rather long factor=level b"], {0}, ...)),
        "two factors, each alone": make_star(),
        "three factors": make_sweep(three, noisy(lambda *_: 70.0)),
    }  # fmt: skip


STUDIES = studies()


@pytest.mark.parametrize(
    ("name", "references"),
    [(name, True) for name in STUDIES] + [(name, False) for name in STUDIES if name.startswith("sweep")],
)
def test_every_text_of_a_figure_can_be_read(name, references):
    runs, ablation = STUDIES[name]
    for width in ("page", "column"):
        check_legible(draw_ablation(with_references(runs) if references else runs, ablation, width=width))


def test_a_column_has_the_same_rows():
    for name in ("leave-one-out, 12 steps, lost runs", "order, exact", "factorial, fraction", "three factors"):
        page, column = (axes_of(draw_ablation(*STUDIES[name], width=width))["forest"] for width in ("page", "column"))
        assert drawn(page, "estimate of ") == drawn(column, "estimate of ")
    with pytest.raises(RoadmapError, match="width is 'wide'"):
        draw_ablation(*STUDIES["sweep"], width="wide")


def test_rows_are_the_effects_largest_first():
    runs, ablation = make_ablation("leave-one-out", noisy(additive))
    axes = axes_of(draw_ablation(runs, ablation))["forest"]
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == ["large kernel", "gelu", "layer norm", "all steps"]
    table = effects(runs, ablation).set_index("effect")
    for step, row in table.iterrows():
        shown = step.replace("_", " ")
        assert drawn(axes, "estimate of ")[shown] == [row["estimate"]]
        (bars,) = (bars for bars in axes.containers if bars.get_label() == f"estimate of {shown}")
        (left, _), (right, _) = bars.lines[2][0].get_segments()[0]
        assert (left, right) == pytest.approx((row["low"], row["high"]))
    scores = {step: group["top1"].to_numpy() for step, group in runs.groupby("step")}
    assert drawn(axes, "values of ")["gelu"] == pytest.approx(list(scores["all"] - scores["all but gelu"]))
    assert {"+0.01", "kernel_size 3 → 7"} <= {text.get_text() for text in axes.texts}


def test_findings_are_dark_and_what_may_be_zero_is_pale():
    runs, ablation = make_ablation("one-at-a-time", lambda steps, seed: 70 + (5 + 0.01 * (seed - 1)) * ("gelu" in steps)
                                   + ("layer_norm" in steps) * (seed - 1))  # fmt: skip
    texts = {text.get_text(): text.get_color() for text in axes_of(draw_ablation(runs, ablation))["forest"].texts}
    assert texts["+5.00"] != texts["+0.00"]


def test_a_very_long_interval_leaves_the_others_legible():
    runs, ablation = make_ablation("one-at-a-time", lambda steps, seed: 70 + seed * ("gelu" in steps), seeds=2)
    axes = axes_of(draw_ablation(runs, ablation))["forest"]
    low, high = axes.get_xlim()
    assert high - low <= 1.2 * MAX_STRETCH
    assert "goes on beyond it" in " ".join(text.get_text() for text in draw_ablation(runs, ablation).texts)


def test_an_order_study_shows_every_order_and_their_range():
    runs, ablation = make_ablation("order", interacting, seeds=2)
    axes = axes_of(draw_ablation(runs, ablation))["forest"]
    assert sorted(drawn(axes, "values of ")["large kernel"]) == pytest.approx([1.5] * 3 + [3.5] * 3)
    (bar,) = (bars.patches[0] for bars in axes.containers if bars.get_label() == "range of large kernel")
    assert (bar.get_x(), bar.get_width()) == pytest.approx((1.5, 2))
    assert "+1.50 to +3.50" in {text.get_text() for text in axes.texts}


def test_lost_runs_are_named():
    runs, ablation = STUDIES["leave-one-out, 12 steps, lost runs"]
    texts = " / ".join(text.get_text() for text in axes_of(draw_ablation(runs, ablation))["forest"].texts)
    assert "3 failed" in texts and "; 1 missing" in texts
    caption = " ".join(draw_ablation(*STUDIES["order, a run failed"]).texts[0].get_text().split())
    assert "4 enter, with 3 seeds" in caption and "runs that failed: 1, that are missing: 0" in caption
    texts = [text.get_text() for text in axes_of(draw_ablation(*STUDIES["sweep, run failed"]))["sweep"].texts]
    assert any("2 of 3 seeds" in text for text in texts)
    column = draw_ablation(*STUDIES["sweep, run failed"], width="column")
    assert any("2 of 3 seeds" in text.get_text() for text in axes_of(column)["forest"].texts)
    texts = [text.get_text() for text in axes_of(draw_ablation(*STUDIES["grid, run missing"]))["map"].texts]
    assert any("2 of 3 seeds" in text for text in texts) and len(texts) == 42


def test_a_numeric_sweep_is_drawn_to_scale():
    runs, ablation = make_sweep({"size": ["size=1", "size=2", "size=4"]}, lambda steps, seed: 70.0 + len(steps) + seed)
    axes = axes_of(draw_ablation(with_references(runs), ablation))["sweep"]
    assert list(axes.get_xticks()) == [1, 2, 4] and axes.get_xscale() == "linear"
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines["means"].get_ydata()) == [72, 72, 72]
    assert list(lines["resnet18"].get_ydata()) == [71.75, 71.75]
    low, high = axes.get_ylim()
    assert low < 71 and high > 73
    rates = [f"lr={rate}" for rate in ("1e-5", "1e-4", "1e-3", "1e-2")]
    assert axes_of(draw_ablation(*make_sweep({"lr": rates}, additive_levels)))["sweep"].get_xscale() == "log"
    uneven = [f"lr={rate}" for rate in (0, 1e-9, 1)]
    axes = axes_of(draw_ablation(*make_sweep({"lr": uneven}, additive_levels)))["sweep"]
    assert list(axes.get_xticks()) == [0, 1, 2] and "not to scale" in axes.get_xlabel()


def additive_levels(steps, seed):
    return 70.0 + seed


def test_names_of_many_references_keep_apart():
    runs, ablation = STUDIES["sweep"]
    rows = [row for number in range(7) for row in reference(f"reference {number}", [75.0, 75.0 + number / 50])]
    check_legible(draw_ablation(pd.concat([runs, pd.DataFrame(rows)]), ablation))


def test_a_matched_study_says_so():
    runs, ablation = make_ablation("leave-one-out", noisy(additive))
    runs["match"], runs["match_factor"] = "gmacs by width", [1.0, 0.87, 1.13] * 4
    caption = " ".join(draw_ablation(runs, ablation).texts[0].get_text().split())
    assert "Width rescaled to the start's GMACs, by ×0.87 to ×1.13." in caption


# --- the trajectory of a ladder with own steps and references


def test_own_steps_and_references_have_their_rows():
    runs, ablation = own_ladder()
    runs["match"] = ["gmacs" if step == "squeeze" else None for step in runs["step"]]
    runs["match_factor"] = [0.873 if step == "squeeze" else math.nan for step in runs["step"]]
    figure = draw_trajectory(with_references(runs), ablation=ablation, paper=True)
    check_legible(figure)
    axes = axes_of(figure)
    names = [tick.get_text() for tick in axes["accuracy"].get_yticklabels()]
    assert names[:6] == ["ResNet-50", "modern recipe", "squeeze", "squeeze more", "stage ratio", "resnet18"]
    path = next(line for line in axes["accuracy"].get_lines() if line.get_label() == "path")
    assert list(path.get_ydata()) == [0, 1, 2, 4]
    markers = {bars.get_label(): bars.lines[0].get_marker() for bars in axes["accuracy"].containers}
    assert (markers["mean of resnet18"], markers["mean of squeeze_more"], markers["mean of squeeze"]) == ("^", "D", "o")
    assert [text.get_text() for text in axes["cost"].texts if "×" in text.get_text()] == ["×0.873"]


# --- from a folder to files


def write_table(folder, runs, ablation, store="nowhere"):
    """The folder of a kept study: a table, and what was asked, without a store."""
    folder.mkdir()
    runs.assign(signature="0" * 16).to_csv(folder / "trajectory.csv", index=False)
    content = {"format": FORMAT, "store": store, "runs": [{"signature": "0" * 16}], "ablation": ablation}
    (folder / "study.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("name", ["leave-one-out, 12 steps, lost runs", "order, exact", "factorial, fraction", "grid"])
def test_a_kept_study_is_read_shown_and_saved(tmp_path, name):
    runs, ablation = STUDIES[name]
    folder = write_table(tmp_path / "study", with_references(runs), ablation)
    study = roadmap.load_study(folder)
    pd.testing.assert_frame_equal(study.effects, effects(runs, ablation))
    assert f"Study study ({ablation['design']}): {len(study.steps)} networks, {len(runs) + 4} runs: " in repr(study)
    assert study.effects["effect"].iloc[0] in repr(study) and "<table" in study._repr_html_()
    assert study.ablation(title="mine")._suptitle.get_text() == "mine"
    paths = save_results(study)
    drawn = ["ablation", "interactions"] if ablation["design"] == "factorial" else ["ablation"]
    files = [f"{figure}.{kind}" for figure in drawn for kind in ("png", "svg", "pdf")]
    assert [path.name for path in paths] == [*files, "effects.csv"]
    again = {path: path.read_bytes() for path in save_results(load_study(folder), paper=True)}
    assert again == {path: path.read_bytes() for path in paths}
    pd.testing.assert_frame_equal(pd.read_csv(folder / "effects.csv"), study.effects, check_dtype=False)
    assert {path.name for path in folder.iterdir()} == {*files, "effects.csv", "trajectory.csv", "study.json"}


def test_a_ladder_is_saved_as_its_trajectory(tmp_path):
    runs, ablation = own_ladder()
    study = load_study(write_table(tmp_path / "study", runs, ablation))
    assert [path.name for path in save_results(study)] == ["trajectory.png", "trajectory.svg", "trajectory.pdf"]
    assert "squeeze_more" in repr(study) and study.effects["against"].tolist()[-1] == "squeeze"


def test_a_table_without_its_description(tmp_path):
    runs, ablation = make_ablation("leave-one-out", additive)
    folder = write_table(tmp_path / "study", pd.concat([pd.DataFrame(reference("resnet18", [70.0])), runs]), ablation)
    (folder / "study.json").unlink()
    with pytest.raises(RoadmapError, match="the runs of a leave-one-out study, but no study.json"):
        load_study(folder)


def test_a_description_without_a_design_or_steps(tmp_path):
    runs, _ = make_ablation("leave-one-out", additive)
    with pytest.raises(RoadmapError, match="its ablation has no design"):
        load_study(write_table(tmp_path / "study", runs, []))
    step = {"name": "gelu", "section": "", "change": ""}
    steps = (None, [3], [{}], [step | {"name": ["a"]}], [step, step | {"settings": 5}])
    wrong = [{"steps": one} for one in steps] + [{"base": 5}, {"factors": [None]}]
    for number, said in enumerate(wrong):
        with pytest.raises(RoadmapError, match="its ablation does not say what its steps are"):
            load_study(write_table(tmp_path / str(number), runs, {"design": "leave-one-out", **said}))


def test_a_kept_study_without_runs(tmp_path):
    runs, ablation = make_ablation("leave-one-out", additive)
    with pytest.raises(RoadmapError, match="no finished run"):
        load_study(write_table(tmp_path / "study", runs[:0], ablation))


def test_a_study_of_which_everything_failed_is_still_drawn(tmp_path):
    for number, design in enumerate(["leave-one-out", "one-at-a-time", "order", "factorial"]):
        study = Study(tmp_path, *make_ablation(design, lambda *_: None))
        assert study.effects["estimate"].isna().all() and (study.effects["failed"] > 0).all(), number
        check_legible(study.ablation())
    check_legible(Study(tmp_path, *make_sweep({"size": ["size=1", "size=2"]}, lambda *_: None)).ablation())
