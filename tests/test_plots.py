"""Every figure shows what its tables say, marks verdicts alike, fits at every width, and knows where its rows are."""

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ablations import FACTORS, LEVELS, make_ablation, make_star, make_sweep, own_ladder, reference
from commands import call
from legible import check_legible, texts_of
from matplotlib.colors import to_hex, to_rgb
from test_analysis import full_scores, make_rows, make_runs, of_steps, write_study
from test_effects import interacting, noisy

from roadmap.checks import RoadmapError
from roadmap.formatting import label
from roadmap.ladders.rungs import ladder
from roadmap.plotting.forest import Interval, Scale
from roadmap.plotting.scatter import pareto_front
from roadmap.plotting.style import LINES, MARKS, WIDTHS, save_figure
from roadmap.results.foreign import read_runs
from roadmap.results.foreign_study import ForeignStudy
from roadmap.results.study import Study, load_study
from roadmap.results.tables import completed

RESULTS = Path(__file__).parents[1] / "results"
LONG = "timm/convnext_xxlarge.clip_laion2b_soup_ft_in12k_in1k_and_a_name_that_goes_on"
EPOCH = {
    "epoch": 1,
    "train_loss": 1.0,
    "train_top1": 1.0,
    "test_loss": 1.0,
    "test_top1": 1.0,
    "test_top5": 50.0,
    "lr_end": 0.1,
    "seconds": 1.0,
    "data_seconds": 0.1,
    "images": 10,
}
KERNELS = {"kernel_size": [3, 5, 7, 9, 11, 31]}


def study_of(made, name="mine"):
    """A study of (runs, facts), or of a ladder's runs."""
    runs, facts = made if isinstance(made, tuple) else (made, {"design": "ladder"})
    return Study(Path(name), completed(runs), facts)


def lost(runs):
    """The same where of one step every run failed, of another one, and of a third one is missing."""
    failed = (runs["step"] == "gelu") | ((runs["step"] == "stage_ratio") & (runs["seed"] == 1))
    runs = runs.assign(status=runs["status"].mask(failed, "failed"), top1=runs["top1"].mask(failed))
    return runs[(runs["step"] != "layer_norm") | (runs["seed"] == 0)]


def foreign(design="ladder", **options):
    """A table of anybody's runs, in which less is better."""
    generator = np.random.default_rng(1)
    worth = {"base": 2.0, "mixup": 1.9, "ema": 1.88, "long": 1.6}
    rows = [{"step": step, "seed": seed, "val_loss": loss + generator.normal(0, 0.02)}
            for step, loss in worth.items() for seed in range(3)]  # fmt: skip
    found = read_runs(pd.DataFrame(rows), design, metric="val_loss", lower_is_better=True, **options)
    return ForeignStudy(found, "runs")


def kernels(steps, seed):
    return 70 + 2 * math.log2(int(min(steps).partition("=")[2])) + 0.1 * (-1) ** seed


def levels(steps, seed):
    return 70 + sum(name.endswith(("=5", "=7", "=layer")) for name in steps) + 0.2 * (-1) ** seed


def fading(steps, seed):
    """A run of one network fails."""
    return None if steps == {"gelu"} and seed == 1 else noisy_interacting(steps, seed)


noisy_interacting = noisy(interacting)
FULL = make_runs(full_scores())
MANY = [rung.name for rung in ladder() if rung.adopted][2:]
REFERENCES = pd.DataFrame(reference("swin_tiny", [61.0, 61.5, 60.8]) + reference(LONG, [61.1, None], gmacs=0.05))

#: Name -> (study, its figures).
STUDIES = {
    "ladder": (study_of(FULL), ["trajectory", "ablation", "pareto"]),
    "references": (study_of(pd.concat([lost(FULL), REFERENCES])), ["trajectory", "pareto"]),
    "one seed": (study_of(of_steps(ladder().names, seeds=1)), ["trajectory", "ablation"]),
    "all failed": (study_of(FULL.assign(status="failed", top1=math.nan)), ["trajectory"]),
    "all effects failed": (study_of(make_ablation("one-at-a-time", lambda *_: None)), ["ablation"]),
    "own steps": (study_of(own_ladder()), ["trajectory"]),
    "extremes": (study_of(make_runs({"resnet50": {0: 0.0, 1: 100.0}, "gelu": {0: 1.0, 1: 100.0}})), ["trajectory"]),
    "many steps": (study_of(make_ablation("leave-one-out", noisy(lambda s, _: 70 + len(s)), MANY)), ["ablation"]),
    "a failed run": (study_of(make_ablation("one-at-a-time", fading)), ["ablation"]),
    "orders": (study_of(make_ablation("order", noisy_interacting)), ["ablation"]),
    "factorial": (study_of(make_ablation("factorial", noisy_interacting)), ["interactions", "ablation"]),
    "fraction": (
        study_of(make_ablation("factorial", noisy(lambda s, _: 70 + len(s)), MANY[:5], settings={"fraction": "1/2"})),
        ["interactions"],
    ),
    "sweep": (study_of(make_sweep(KERNELS, kernels)), ["levels", "ablation"]),
    "grid": (study_of(make_sweep(LEVELS, levels, grid=True)), ["levels"]),
    "star": (study_of(make_star()), ["levels"]),
    "foreign": (foreign(), ["trajectory", "ablation"]),
}
FIGURES = [(name, figure) for name, (_, figures) in STUDIES.items() for figure in figures]


def draw(name, figure, **look):
    return getattr(STUDIES[name][0], figure)(**look)


def axes_of(figure):
    return {axes.get_label(): axes for axes in figure.axes}


def lines_of(axes, what):
    return [line for line in axes.get_lines() if line.get_label() == what]


def words_of(figure):
    return [text.get_text() for text in texts_of(figure)]


# --- legible, and where things are


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("name", "figure"), FIGURES, ids=[f"{name}-{figure}" for name, figure in FIGURES])
def test_every_text_can_be_read(name, figure, width):
    drawn = draw(name, figure, width=width, caption=width == "page")
    check_legible(drawn)
    assert drawn.get_size_inches()[0] == pytest.approx(WIDTHS[width].across)
    if width == "slide":
        assert np.divide(*drawn.get_size_inches()) == pytest.approx(16 / 9)
        assert min(text.get_fontsize() for text in texts_of(drawn)) >= 18
    assert drawn.headline and drawn.caption


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_lie_where_their_names_stand(width):
    for name, figure in (("ladder", "trajectory"), ("many steps", "ablation")):
        drawn = draw(name, figure, width=width)
        drawn.draw_without_rendering()
        height = drawn.get_size_inches()[1] * drawn.dpi
        places = {text.get_text().replace("\n", " "): text.get_window_extent() for text in drawn.texts}
        assert len({row.name for row in drawn.rows}) == len(drawn.rows) > 9
        tops = [row.box[1] for row in drawn.rows]
        assert tops == sorted(tops)
        for row in drawn.rows:
            place = places[label(row.name)]
            middle = 1 - (place.y0 + place.y1) / 2 / height
            assert row.box[1] < middle < row.box[1] + row.box[3], row


@pytest.mark.parametrize("figure", ["levels", "interactions", "pareto", "curves"])
def test_parts_of_other_figures_have_boxes_within_the_picture(figure, tmp_path):
    names = {"levels": "grid", "interactions": "factorial", "pareto": "ladder"}
    study = STUDIES[names[figure]][0] if figure in names else load_study(RESULTS / "cifar10")
    rows = getattr(study, figure)().rows
    boxes = np.array([row.box for row in rows])
    assert (boxes >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= 1 + 1e-9).all()
    expected = {"levels": 6, "interactions": 6, "pareto": 17, "curves": 17}
    assert len({row.name for row in rows}) == len(rows) == expected[figure]


def test_rows_that_find_no_room_on_a_slide_are_the_least_telling_and_counted():
    worth = {name: place / 3 for place, name in enumerate(MANY)}
    steps = [*MANY, *(f"extra_{number}" for number in range(20))]
    made = make_ablation("leave-one-out", noisy(lambda s, _: 50 + sum(worth.get(x, 0) for x in s)), steps, seeds=2)
    drawn = study_of(made).ablation(width="slide")
    left_out = len(steps) - len(drawn.rows)
    assert left_out > 0 and f"{left_out} more rows, the smallest differences, are in the table." in words_of(drawn)
    assert {row.name for row in drawn.rows} >= {*MANY[-5:]}


# --- what is shown


def test_a_forest_is_the_table_of_effects():
    for name in ("many steps", "orders", "ladder"):
        study = STUDIES[name][0]
        drawn, table = study.ablation(), study.effects.set_index("effect")
        axes = axes_of(drawn)["forest"]
        marks = {round(line.get_ydata()[0] - 0.5): line for line in lines_of(axes, "estimate")}
        lines = {round(line.get_ydata()[0] - 0.5): line for line in lines_of(axes, "interval")}
        assert len(marks) == len(drawn.rows) == len(table)
        for place, row in enumerate(drawn.rows):
            effect, mark = table.loc[row.name], MARKS[table.loc[row.name, "verdict"]]
            assert marks[place].get_xdata()[0] == pytest.approx(effect["estimate"])
            assert list(lines[place].get_xdata()) == pytest.approx([effect["low"], effect["high"]])
            assert (marks[place].get_marker(), to_hex(marks[place].get_color())) == (mark.marker, mark.colour.lower())
            assert f"{effect['estimate']:+.1f} {mark.sign}".replace("-", "−") in words_of(drawn)
        estimates = [table.loc[row.name, "estimate"] for row in drawn.rows]
        assert not study.question.ranked or estimates == sorted(estimates, reverse=True)


def test_a_trajectory_is_the_table_of_steps():
    study = STUDIES["references"][0]
    drawn, steps = study.trajectory(), study.steps.set_index("step")
    assert [row.name for row in drawn.rows] == list(steps.index)
    bars = {patch.get_label(): patch for patch in axes_of(drawn)["accuracy"].patches}
    for place, (step, row) in enumerate(steps.iterrows()):
        bar = bars.get(f"bar {place}")
        start = steps["top1_mean"].get(row["against"], math.nan) if isinstance(row["against"], str) else math.nan
        if bar is None:
            assert row["reference"] or math.isnan(row["top1_mean"]) or math.isnan(start), step
        else:
            assert (bar.get_x(), bar.get_width()) == pytest.approx((start, row["top1_mean"] - start))
            verdict = row["verdict"] if isinstance(row["verdict"], str) else None
            assert to_hex(bar.get_edgecolor()) == MARKS[verdict].colour.lower()
    words = words_of(drawn)
    assert "failed" in words and "Failed runs: " in drawn.caption and "Missing runs: layer norm 2" in drawn.caption
    printed = ladder()
    gain = printed["fewer_activations"].printed.top1 - printed["large_kernel"].printed.top1
    assert any(word == f"{gain:+.1f}" for word in words) or study.effects["against"].eq("gelu").any()


def test_our_gain_stands_beside_the_papers_and_the_cost():
    study = study_of(FULL.assign(gmacs=0.0086))
    drawn = study.trajectory()
    places = {}
    for text in drawn.texts:
        places.setdefault(text.get_text(), []).append(text.get_position())
    (row,) = (row for row in drawn.rows if row.name == "modern_recipe")
    table = study.effects.set_index("effect")
    beside = {word for word, found in places.items() for _, y in found if row.box[1] < 1 - y < row.box[1] + row.box[3]}
    assert f"{table.loc['modern_recipe', 'estimate']:+.1f} ▲" in beside
    assert "+2.7" in beside, "78.8 after 76.1 in Table 10"
    assert "8.60" in beside and "MMACs" in places


def test_the_papers_own_accuracies_can_stand_beside():
    study = STUDIES["ladder"][0]
    assert "paper" not in axes_of(study.trajectory())
    bars = [patch for patch in axes_of(study.trajectory(paper=True))["paper"].patches if "bar" in patch.get_label()]
    rungs = ladder()
    assert bars[0].get_x() + bars[0].get_width() == pytest.approx(rungs["modern_recipe"].printed.top1)


def test_the_axis_fits_what_is_decided_and_the_rest_is_an_arrow_with_its_number():
    known = [Interval(value, value - 0.5, value + 0.5, "gain") for value in (1.0, 2.0)]
    far = Interval(40.0, -115.0, 195.0, "open")
    scale = Scale.of([*known, far])
    assert -1 < scale.low < 0 < 2.5 < scale.high < 5 and scale.beyond == (True, True)
    scores = {"resnet50": {0: 10.0, 1: 80.0}, "gelu": {0: 70.0, 1: 70.1}, "fewer_norms": {0: 75.0, 1: 75.1},
              "layer_norm": {0: 78.0, 1: 78.1}, "separate_downsample": {0: 80.0, 1: 80.1}}  # fmt: skip
    study = study_of(make_runs(scores))
    drawn = study.ablation()
    effect = study.effects.set_index("effect").loc["gelu"]
    words = [text.get_text() for text in axes_of(drawn)["forest"].texts]
    assert {f"{effect['high']:+.0f}", f"{effect['low']:+.0f}".replace("-", "−")} <= {*words}
    assert not any("−0.0" in word for word in words_of(drawn))


def test_a_map_has_every_effect_once_with_its_interval():
    study = STUDIES["factorial"][0]
    drawn = study.interactions()
    cells = {patch.get_label(): patch for patch in axes_of(drawn)["map"].patches}
    assert len(cells) == len(drawn.rows) == len(study.effects)
    words = words_of(drawn)
    for row in study.effects.to_dict("records"):
        shown = f"{row['low']:+.1f} to {row['high']:+.1f}".replace("-", "−").replace("−0.0", "+0.0")
        assert shown in words
        colour = np.array(to_rgb(cells[row["effect"]].get_facecolor()))
        decided = row["verdict"] in ("gain", "loss")
        assert decided == (colour.max() - colour.min() > 0.3), "what is undecided is pale"
        if decided:
            assert (colour.argmax() == 2) == (row["estimate"] > 0), "gains are blue"
    assert {word for word in words if word in map(label, FACTORS)} == {*map(label, FACTORS)}


def test_levels_are_a_line_a_map_or_rows():
    study = STUDIES["sweep"][0]
    drawn, table = study.levels(), study.effects.set_index("effect")
    means = study.steps.set_index("step")["top1_mean"]
    axes = axes_of(drawn)["levels"]
    shown = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines_of(axes, "means")[0].get_ydata()) == pytest.approx(means.to_list())
    for level, row in table.iterrows():
        mark = shown[f"mean of {level}"]
        assert mark.get_ydata()[0] == pytest.approx(means[level])
        assert mark.get_marker() == MARKS[row["verdict"]].marker
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["3", "5", "7", "9", "11", "31"]
    assert "(logarithmic)" in axes.get_xlabel()
    grid = STUDIES["grid"][0]
    cells = {row.name for row in grid.levels().rows}
    assert cells == {*grid.steps["step"]}
    assert "forest" in axes_of(STUDIES["star"][0].levels())


def test_the_front_is_what_nothing_beats():
    assert pareto_front([1, 2, 3, 3], [70, 69, 75, 75]) == [True, False, True, True]
    assert pareto_front([1, 2], [70, 75], lower_is_better=False) == [False, True]
    assert pareto_front([1, math.nan, 2], [70, 99, math.nan]) == [True, False, False]


@pytest.mark.parametrize("cost", ["gmacs", "params", "images_per_second", "seconds"])
def test_accuracy_against_cost(cost):
    study = load_study(RESULTS / "cifar10")
    drawn = study.pareto(cost)
    means, costs = study.steps.set_index("step")["top1_mean"], study.costs.set_index("step")[cost]
    dots = {line.get_label().removeprefix("mean of "): line for line in axes_of(drawn)["cost"].get_lines()
            if line.get_label().startswith("mean of ")}  # fmt: skip
    scale = next(iter(dots.values())).get_xdata()[0] / costs.iloc[0]
    for step, mean in means.items():
        assert dots[step].get_ydata()[0] == pytest.approx(mean)
        assert dots[step].get_xdata()[0] == pytest.approx(costs[step] * scale)
    front = pareto_front([*costs], [*means], lower_is_better=cost != "images_per_second")
    named = {text.get_text() for text in axes_of(drawn)["cost"].texts} - {""}
    wanted = {label(step) for step, on in zip(means.index, front, strict=True) if on}
    assert named == {name for name in wanted if name not in drawn.caption.partition("lack of room")[2]}


def test_curves_are_those_of_the_table():
    study = load_study(RESULTS / "cifar10")
    steps = ["modern_recipe", "kernel_9"]
    drawn = study.curves(steps=steps)
    (axes,) = drawn.axes
    for step in steps:
        (line,) = lines_of(axes, f"mean of {step}")
        expected = study.curves[study.curves["step"] == step].groupby("epoch")["test_top1"].mean()
        assert list(line.get_ydata()) == pytest.approx(expected.to_list())
        assert line.is_dashed() == (step == "kernel_9")
    assert [row.name for row in drawn.rows] == steps
    assert len(study.curves().axes) == 17, "of more than five each has its own panel"
    for wrong, message in (({"quantity": "speed"}, "unknown quantity"), ({"steps": ["gelu", "gelu"]}, "named twice"),
                           ({"steps": []}, "no step is named"), ({"steps": ["gleu"]}, "gelu")):  # fmt: skip
        with pytest.raises(RoadmapError, match=message):
            study.curves(**wrong)


def test_runs_that_failed_are_drawn_to_their_end_and_are_in_no_mean(tmp_path):
    history = [EPOCH | {"epoch": epoch, "test_top1": 20.0 * epoch} for epoch in (1, 2)]
    write_study(tmp_path / "study", make_rows({"resnet50": {0: 60.0, 1: None}}), history)
    drawn = load_study(tmp_path / "study").curves()
    (axes,) = drawn.axes
    assert len(lines_of(axes, "failed run of resnet50")) == len(lines_of(axes, "end of resnet50")) == 1
    assert "40.0; 1 failed" in "".join(words_of(drawn)) and "failed runs, of ResNet-50" in drawn.caption


def test_two_studies_stand_beside_each_other():
    first = study_of(of_steps(["resnet50", "modern_recipe", "stage_ratio", "gelu"]), "first")
    second = study_of(of_steps(["resnet50", "modern_recipe", "stage_ratio", "fewer_norms"], seeds=4), "second")
    drawn = first.compare(second)
    assert [row.name for row in drawn.rows] == ["modern_recipe", "stage_ratio", "fewer_norms", "gelu"]
    for panel, study in (("first", first), ("second", second)):
        axes = axes_of(drawn)[panel]
        shown = sorted(line.get_xdata()[0] for line in lines_of(axes, "estimate"))
        assert shown == pytest.approx(sorted(study.effects["estimate"]))
    assert drawn.headline.startswith("second against first: ") and "Difference: second − first." in drawn.caption
    spans = {axes.get_xlim() for axes in drawn.axes}
    assert len(spans) == 1, "all panels have one scale"
    for width in WIDTHS:
        check_legible(first.compare(second, width=width))
    check_legible(study_of(own_ladder(), "a/" + "long name " * 9).compare(first, width="column"))


def test_a_foreign_table_speaks_of_its_own_score_alone():
    for study in (foreign(), foreign("baseline", baseline="base")):
        for figure in dict.fromkeys([*study.figures, "ablation"]):
            drawn = getattr(study, figure)()
            said = " ".join([*words_of(drawn), drawn.headline, drawn.caption]).lower()
            assert "val_loss" in said
            for word in ("paper", "macs", "top-1", "top1", "accuracy", "imagenet", "pp"):
                assert word not in said, (figure, word)
        best = drawn.rows[-1].name if "baseline" in study.question.name else "long"
        assert best == "long" and study.effects.set_index("effect").loc["long", "verdict"] == "gain"
        assert drawn.headline.startswith("Long −0.")


# --- looks


def test_titles_captions_fonts_and_widths():
    study = STUDIES["ladder"][0]
    plain = study.trajectory()
    assert plain.headline.replace(" ", "") in "".join(words_of(plain)).replace("\n", "").replace(" ", "")
    bare = study.trajectory(title="", caption=False)
    assert bare.headline == plain.headline and bare.caption == plain.caption
    assert not {plain.caption, plain.headline} & {" ".join(word.split()) for word in words_of(bare)}
    assert bare.get_size_inches()[1] < plain.get_size_inches()[1]
    assert study.trajectory(title="mine").headline == "mine"
    assert {text.get_fontfamily()[0] for text in study.ablation(font="DejaVu Serif").texts} == {"DejaVu Serif"}
    for wrong, message in (({"width": "poster"}, "width is 'poster'"), ({"font": "Comic"}, "font")):
        with pytest.raises(RoadmapError, match=message):
            study.trajectory(**wrong)


def test_files_are_whole_and_deterministic_and_have_their_caption(tmp_path):
    for _ in range(2):
        paths = save_figure(STUDIES["factorial"][0].ablation(), tmp_path, "effects_100%")
        contents = [path.read_bytes() for path in paths]
    assert [path.name for path in paths] == [f"effects_100%.{kind}" for kind in ("png", "svg", "pdf", "md", "tex")]
    again = save_figure(STUDIES["factorial"][0].ablation(), tmp_path, "effects_100%")
    assert [path.read_bytes() for path in again][1:] == contents[1:]
    png, svg, _, markdown, latex = contents
    assert png.startswith(b"\x89PNG") and int.from_bytes(png[16:20], "big") == 1400
    assert b">large kernel</text>" in svg, "text is text"
    drawn = STUDIES["factorial"][0].ablation()
    assert drawn.caption in markdown.decode() and f"**{drawn.headline}.**" in markdown.decode()
    assert latex.decode().startswith("\\begin{figure*}") and r"$\times$" in latex.decode()
    assert r"95 \%" in latex.decode() and "×" not in latex.decode()


#: Machado, Oliveira & Fernandes, "A physiologically-based model for simulation of color vision deficiency" (2009):
#: linear RGB as somebody sees it who has no cones of the first or of the second kind.
SEEN = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
#: Linear RGB to CIE XYZ (IEC 61966-2-1), by the white of D65.
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) / [
    [0.9505],
    [1],
    [1.089],
]


def lab(colour, seen):
    """CIE L*a*b* of a colour; nearly equal colours are nearer than some 2 units."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(XYZ @ np.clip(np.array(seen) @ linear, 0.008, 1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN)
def test_the_colour_blind_tell_colours_and_verdicts_apart(seen):
    findings = [MARKS[verdict].colour for verdict in ("gain", "loss", "negligible")]
    for palette in (LINES, findings):
        for one, other in itertools.combinations(palette, 2):
            assert np.linalg.norm(lab(one, seen) - lab(other, seen)) > 20, (one, other)
    assert len({(mark.marker, mark.sign) for mark in MARKS.values()}) == len(MARKS)


# --- the command


@pytest.mark.parametrize(
    ("words", "files"),
    [
        ("", ["curves.csv", "effects.csv", *(f"trajectory.{kind}" for kind in ("md", "pdf", "png", "svg", "tex"))]),
        ("--figure pareto --cost params --no-title", [f"pareto.{kind}" for kind in ("md", "pdf", "png", "svg", "tex")]),
        ("--with ../study --width slide", [f"comparison-slide.{kind}" for kind in ("md", "pdf", "png", "svg", "tex")]),
    ],
)
def test_plot_draws_any_figure(tmp_path, words, files):
    write_study(tmp_path / "study", make_rows({"resnet50": {0: 60.0}, "modern_recipe": {0: 65.0}}), [EPOCH])
    shown = call("plot", tmp_path / "study", *words.split(), "--out", tmp_path / "out", cwd=tmp_path / "study")
    assert shown.code == 0, shown.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files
    assert sorted(shown.out.split()) == [str(tmp_path / "out" / name) for name in files]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("study --figure pareto --paper", "--paper is for the trajectory of a ladder"),
        ("study --figure pareto --with .", "--figure and --with exclude each other"),
        ("study --with nowhere", "there is no folder nowhere"),
        ("study --figure heatmap", "'heatmap' is not one of"),
        ("study --figure levels", "study is a ladder study, which has no levels: its figures are trajectory"),
        ("study --cost gmacs", "--x is for --figure pareto"),
        ("study --figure pareto --cost watts", "unknown cost"),
        ("study --font Nonesuch", "unknown font"),
        ("study --metric loss", "unknown metric 'loss'; known: top1, top5"),
        ("runs.csv --paper", "--paper is for a study, but runs.csv is a table of runs"),
        ("runs.csv --figure curves", "curves cannot be drawn: a table of runs has neither"),
    ],
)
def test_plots_that_cannot_be(tmp_path, words, message):
    write_study(tmp_path / "study", make_rows({"resnet50": {0: 60.0}}))
    (tmp_path / "runs.csv").write_text("step,seed,top1\na,0,70\nb,0,71\n")
    shown = call("plot", *words.split(), cwd=tmp_path)
    assert shown.code == 2 and message in shown.err and shown.err.count("\n") == 1


def test_a_table_of_anybodys_runs_is_drawn_beside_it(tmp_path):
    rows = "".join(f"{name},{seed},{loss + seed / 100}\n" for name, loss in (("a", 2), ("b", 1)) for seed in (0, 1, 2))
    (tmp_path / "runs.csv").write_text(f"model,seed,loss\n{rows}")
    words = ["plot", "runs.csv", "--metric", "loss", "--step", "model", "--lower-is-better", "--width", "column"]
    shown = call(*words, cwd=tmp_path)
    assert shown.code == 0, shown.err
    stems = ("runs-ablation-column", "runs-trajectory-column")
    files = {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg", "pdf", "md", "tex")}
    assert {path.name for path in tmp_path.iterdir()} == {"runs.csv", *files}
    assert "B −1.0" in (tmp_path / "runs-ablation-column.md").read_text()
