"""Accuracy against cost, learning curves and interactions, by what they show, and what holds of all figures."""

import itertools
import math
import random
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ablations import FACTORS, make_ablation, reference
from legible import check_legible, texts_of
from matplotlib.colors import to_rgb
from PIL import Image
from roadmap.analysis.ablation import effects
from roadmap.study.ablation import alias_groups
from scipy import stats
from test_ablation_figure import axes_of
from test_effects import interacting, lacking, noisy

from roadmap import look
from roadmap.analysis.curves_figure import QUANTITIES, draw_curves
from roadmap.analysis.interactions_figure import draw_interactions
from roadmap.analysis.pareto_figure import COSTS, draw_pareto, pareto_front
from roadmap.analysis.study import load_study
from roadmap.analysis.tables import summarize
from roadmap.checks import RoadmapError
from roadmap.look import name_of, save_figure

RUNS = load_study(Path(__file__).parents[1] / "results" / "cifar10").runs
WIDTHS = ("page", "column")
LONG = "timm/convnext_xxlarge.clip_laion2b_soup_ft_in12k_in1k_and_a_name_that_goes_on"


def failing(runs, step, seeds):
    """The same runs, of which those of a step with these seeds failed."""
    failed = (runs["step"] == step) & runs["seed"].isin(seeds)
    return runs.assign(status=runs["status"].mask(failed, "failed"), top1=runs["top1"].mask(failed))


def many_seeds():
    return pd.concat([RUNS.assign(seed=RUNS["seed"] + 3 * n, top1=RUNS["top1"] + n / 7) for n in range(7)])


def with_references():
    rows = pd.DataFrame(reference("resnet18", [71.0, 72.5]) + reference(LONG, [71.1, None], gmacs=0.05))
    return pd.concat([RUNS, rows], ignore_index=True)


STUDIES = {
    "all rungs": RUNS,
    "one rung": RUNS[RUNS["step"] == "gelu"],
    "one seed": RUNS[RUNS["seed"] == 0],
    "one run": RUNS[(RUNS["step"] == "gelu") & (RUNS["seed"] == 0)],
    "many seeds": many_seeds(),
    "missing runs": RUNS.drop(RUNS.index[[3, 4, 5, 7, 30]]),
    "failed runs": failing(failing(RUNS, "gelu", [0, 1, 2]), "kernel_9", [1]),
    "all failed": RUNS.assign(status="failed", top1=math.nan),
    "all alike": RUNS.assign(top1=70.0, gmacs=1.0, images_per_second=900.0),
    "references": with_references(),
}


def costs_of(runs):
    return runs.groupby("step", sort=False)[[*COSTS]].mean().reset_index()


def curves_of(runs, epochs=6, tested=lambda epoch: True):
    """Made-up curves that end at each run's accuracy; a failed run's after two epochs, with an infinite loss."""
    rows = []
    for run in runs.to_dict("records"):
        failed = run["status"] == "failed"
        top1 = 50.0 if math.isnan(run["top1"]) else run["top1"]
        for epoch in range(1, 1 + (2 if failed else epochs)):
            value = top1 - 20 * (1 - epoch / epochs) + run["seed"] / 8
            known = tested(epoch)
            rows.append(
                {name: run[name] for name in ("step", "adopted", "reference", "seed", "status")}
                | {
                    "epoch": epoch,
                    "train_top1": value - 5,
                    "train_loss": math.inf if failed and epoch == 2 else 2 / epoch,
                }
                | {"test_top1": value if known else math.nan, "test_top5": value / 2 + 50, "test_loss": 3 / epoch}
            )
    return pd.DataFrame(rows)


def check_figure(figure):
    """Legible: nothing overlaps or is cut off, and no text is smaller than 6 points."""
    check_legible(figure)
    assert min(text.get_fontsize() for text in texts_of(figure)) >= 6


def caption_of(figure):
    return " ".join(next(text.get_text() for text in figure.texts if text.get_position()[1] < 0.1).split())


# --- files


def factorial_effects(**values):
    return effects(*make_ablation("factorial", noisy(interacting), **values))


DRAWN = {
    "pareto": lambda **options: draw_pareto(summarize(RUNS), costs_of(RUNS), **options),
    "curves": lambda **options: draw_curves(curves_of(RUNS), **options),
    "interactions": lambda **options: draw_interactions(factorial_effects(), **options),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", DRAWN)
def test_files_are_what_their_names_say(tmp_path, name, width):
    figure = DRAWN[name](width=width, title="mine")
    png, svg, pdf = save_figure(figure, tmp_path, name)
    with Image.open(png) as image:
        image.load()
        assert image.format == "PNG" and image.size == pytest.approx(200 * figure.get_size_inches(), abs=1)
    assert figure.get_size_inches()[0] == {"page": 9.0, "column": 3.4}[width]
    assert xml.etree.ElementTree.parse(svg).getroot().tag.endswith("svg")
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF") and content.rstrip().endswith(b"%%EOF")
    assert b"/Type3" not in content and b"/FontFile2" in content and b"CreationDate" not in content
    if width == "column":
        before = [path.read_bytes() for path in (svg, pdf)]
        save_figure(DRAWN[name](width=width, title="mine"), tmp_path, name)
        assert [path.read_bytes() for path in (svg, pdf)] == before


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_a_title_replaces_the_figures_own_and_a_width_is_one_of_two(draw):
    assert draw(title="mine")._suptitle.get_text() == "mine" != draw()._suptitle.get_text()
    with pytest.raises(RoadmapError, match="width is 'wide', but must be one of page, column"):
        draw(width="wide")


# --- the Pareto front


def beats(one, other):
    """Cost and accuracy, less and more being better: no worse in both, and not the same."""
    return one[0] <= other[0] and one[1] >= other[1] and one != other


def test_the_front_is_what_nothing_beats():
    generator = random.Random(0)
    for _ in range(300):
        some = [
            (generator.randint(0, 6), generator.choice([1, 2, 3, 4, math.nan])) for _ in range(generator.randint(0, 9))
        ]
        known = [point for point in some if not math.isnan(point[1])]
        expected = [point in known and not any(beats(other, point) for other in known) for point in some]
        costs, accuracies = [cost for cost, _ in some], [accuracy for _, accuracy in some]
        assert pareto_front(costs, accuracies) == expected
        assert pareto_front([-cost for cost in costs], accuracies, lower_is_better=False) == expected


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", STUDIES)
def test_accuracy_and_cost_are_legible(name, width):
    runs = STUDIES[name]
    check_figure(draw_pareto(summarize(runs), costs_of(runs), width=width))


def test_accuracy_and_cost_are_legible_for_any_rungs():
    generator = random.Random(1)
    for number in range(6):
        steps = generator.sample([*RUNS["step"].unique()], generator.randint(2, 16))
        runs = RUNS[RUNS["step"].isin(steps)].copy()
        runs["top1"] += [generator.uniform(-3, 3) for _ in range(len(runs))]
        check_figure(draw_pareto(summarize(runs), costs_of(runs), [*COSTS], width=WIDTHS[number % 2]))


def test_many_networks_are_legible():
    """Of a factorial of 64 networks not every one has a number."""
    runs, _ = make_ablation("factorial", noisy(lambda steps, _: 60.0 + len(steps)), [f"step {n}" for n in range(6)])
    runs["images_per_second"] = runs["gmacs"] * np.linspace(1, 3, len(runs))
    runs["activations"] = range(1000, 1000 + len(runs))
    figure = draw_pareto(summarize(runs, {"design": "factorial"}), costs_of(runs))
    check_figure(figure)
    assert "path" not in [line.get_label() for line in axes_of(figure)["gmacs"].get_lines()]


def means(axes):
    """Step -> (x, y) of its dot."""
    return {
        bars.get_label().removeprefix("mean of "): tuple(bars.lines[0].get_xydata()[0])
        for bars in axes.containers
        if bars.get_label().startswith("mean of ")
    }


@pytest.mark.parametrize("name", ["all rungs", "references", "missing runs", "failed runs"])
def test_accuracy_and_cost_are_those_of_the_tables(name):
    runs = STUDIES[name]
    steps, costs = summarize(runs), costs_of(runs)
    figure = draw_pareto(steps, costs, ["gmacs", "images_per_second"])
    table = steps.set_index("step")[["top1_mean"]].join(costs.set_index("step"))
    table = table[table["top1_mean"].notna()]
    key = dict(text.get_text().split(maxsplit=1) for text in figure.texts if text.get_text().strip()[0].isdigit())
    references = {*steps["step"][steps["reference"]]}
    for cost, axes in axes_of(figure).items():
        known = table[table[cost].notna()]
        drawn = means(axes)
        assert drawn == {step: (row[cost], row["top1_mean"]) for step, row in known.iterrows()}
        line = next(line for line in axes.get_lines() if line.get_label() == "front")
        sign = 1 if cost == "gmacs" else -1
        points = {step: (sign * row[cost], row["top1_mean"]) for step, row in known.iterrows()}
        front = [step for step in points if not any(beats(other, points[step]) for other in points.values())]
        corners = set(map(tuple, line.get_xydata()))
        assert {drawn[step] for step in front} == corners & set(drawn.values())
        assert all(y <= max(y for x, y in points.values() if x <= sign * corner) for corner, y in corners)
        numbered = {text.get_text().split()[0]: text for text in axes.texts if text.get_text()}
        assert len(numbered) == len(drawn)
        for number, text in numbered.items():
            (step,) = [step for step in drawn if name_of(step, step in references)[:20] == key[number][:20]]
            assert text.xy == drawn[step] and (text.get_weight() == "bold") == (step in front)
        assert ("better →" if cost == "images_per_second" else "← better") in axes.get_xlabel()


def test_networks_without_accuracy_or_cost_are_named():
    runs = STUDIES["failed runs"]
    costs = costs_of(runs)
    costs.loc[costs["step"] == "layer_norm", "images_per_second"] = math.nan
    costs["activations"] = math.nan
    figure = draw_pareto(summarize(runs), costs, ["activations", "images_per_second"])
    assert list(axes_of(figure)) == ["images_per_second"]
    assert "Without a result: gelu." in caption_of(figure)
    assert "Not known of layer norm: images per second in training." in caption_of(figure)
    assert "Not known of any network: activations per image." in caption_of(figure)


def test_costs_that_there_are_not():
    steps, costs = summarize(RUNS), costs_of(RUNS)
    with pytest.raises(RoadmapError, match=r"unknown cost 'gmac' \(did you mean 'gmacs'\?\)"):
        draw_pareto(steps, costs, ["gmac"])
    with pytest.raises(RoadmapError, match="nothing is known of what these networks cost"):
        draw_pareto(steps, costs.assign(params=math.nan), ["params"])


# --- learning curves


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", STUDIES)
def test_curves_are_legible(name, width):
    curves = curves_of(STUDIES[name])
    check_figure(draw_curves(curves, width=width))
    some = [*curves["step"].unique()][-5:]
    check_figure(draw_curves(curves, some, quantity="train_loss", width=width))


def lines_of(figure):
    """What is drawn -> (x, y) of it."""
    return {line.get_label(): line.get_xydata() for axes in figure.axes for line in axes.get_lines()}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_curves_are_those_of_the_table(quantity, shared):
    curves = curves_of(RUNS)
    steps = ["kernel_9", "gelu", "resnet50"] if shared else [*RUNS["step"].unique()][::-1]
    figure = draw_curves(curves, steps, quantity)
    assert len(figure.axes) == (1 if shared else len(steps))
    drawn = lines_of(figure)
    for step in steps:
        values = curves[curves["step"] == step].pivot(index="epoch", columns="seed", values=quantity)
        assert drawn[f"mean of {step}"] == pytest.approx(np.stack([values.index, values.mean(axis=1)], axis=1))
    if quantity == "test_top1":
        bands = {band.get_label(): band for axes in figure.axes for band in axes.collections}
        low, high = stats.t.interval(0.95, 2, values.iloc[-1].mean(), stats.sem(values.iloc[-1]))
        corners = bands[f"interval of {step}"].get_paths()[0].vertices
        assert {*corners[corners[:, 0] == 6, 1].round(9)} == {round(low, 9), round(high, 9)}


def test_a_panel_each_shows_the_first_too():
    figure = draw_curves(curves_of(RUNS))
    first = lines_of(figure)["mean of resnet50"]
    behind = [line.get_xydata() for axes in figure.axes for line in axes.get_lines() if line.get_label() == "first"]
    assert len(behind) == 16 and all(np.array_equal(line, first) for line in behind)
    assert "Grey in every panel: ResNet-50." in caption_of(figure)
    dashed = {axes.get_label() for axes in figure.axes for line in axes.get_lines() if line.is_dashed()}
    assert dashed == {f"curves of kernel_{size}" for size in (5, 9, 11)}


def test_epochs_without_a_test_have_no_dot():
    figure = draw_curves(curves_of(RUNS, epochs=40, tested=lambda epoch: epoch % 10 == 0), ["gelu"])
    (line,) = [line for line in figure.axes[0].get_lines() if line.get_label() == "mean of gelu"]
    assert [*line.get_xdata()] == [10, 20, 30, 40] and line.get_marker() == "o"
    assert "Epochs without a dot have no value." in caption_of(figure)


def test_failed_runs_are_drawn_to_their_end_and_enter_no_mean():
    runs = STUDIES["failed runs"]
    curves = curves_of(runs)
    figure = draw_curves(curves, ["gelu", "kernel_9"])
    drawn = lines_of(figure)
    done = curves[(curves["step"] == "kernel_9") & (curves["status"] == "done")]
    assert drawn["mean of kernel_9"][:, 1] == pytest.approx(done.groupby("epoch")["test_top1"].mean())
    assert not len(drawn["mean of gelu"])
    for step in ("gelu", "kernel_9"):
        assert drawn[f"failed run of {step}"][-1, 0] == drawn[f"end of {step}"][0, 0] == 2
    names = [text.get_text() for text in figure.axes[0].texts]
    assert any(text.startswith("gelu\n3 failed") for text in names) and "runs that failed" in caption_of(figure)
    # A loss that is no number any more ends the line before it.
    assert lines_of(draw_curves(curves, ["gelu"], "train_loss"))["end of gelu"][0, 0] == 1


def test_curves_that_there_are_not():
    curves = curves_of(RUNS)
    with pytest.raises(RoadmapError, match=r"unknown step 'gelo' \(did you mean 'gelu'\?\)"):
        draw_curves(curves, ["gelo"])
    with pytest.raises(RoadmapError, match=r"unknown quantity 'top1' \(did you mean 'test_top1'\?\)"):
        draw_curves(curves, quantity="top1")
    with pytest.raises(RoadmapError, match="step 'gelu' is named twice"):
        draw_curves(curves, ["gelu", "gelu"])
    with pytest.raises(RoadmapError, match="there are no learning curves"):
        draw_curves(curves[:0])
    with pytest.raises(RoadmapError, match="no step is named"):
        draw_curves(curves, [])
    with pytest.raises(RoadmapError, match="these runs have no test_top1 at any epoch"):
        draw_curves(curves.assign(test_top1=math.nan))


# --- interactions

FOUR = ["stage_ratio", "large_kernel", "gelu", "layer_norm"]
HALF = [frozenset(steps) for count in (0, 2, 4) for steps in itertools.combinations(FOUR, count)]


def half_of_four():
    """Half of the networks of four steps, in which every interaction is mixed up with that of the other two."""
    aliases = [
        [[FOUR[place] for place in effect] for effect in group] for group in alias_groups(4, [frozenset(range(4))])
    ]
    return factorial_of(FOUR, networks=HALF, fraction="1/2", aliases=aliases)


def factorial_of(factors, **values):
    def worth(steps, seed):
        return 70.0 + seed / 8 + len(steps) / 4 + 2 * ({"gelu", "layer_norm"} <= steps)

    return effects(*make_ablation("factorial", noisy(worth, scale=0.02), factors, **values))


FACTORIALS = {
    "one step": lambda: factorial_of(["gelu"]),
    "three steps": lambda: factorial_of(FACTORS),
    "one seed": lambda: factorial_of(FOUR, seeds=1),
    "eight steps": lambda: factorial_of([*FOUR, "fewer_norms", "fewer_activations", "separate_downsample", LONG]),
    "a fraction": half_of_four,
    "a run failed": lambda: effects(*make_ablation("factorial", lacking(noisy(interacting), {"gelu"}, {1}, None))),
    "all failed": lambda: effects(*make_ablation("factorial", lambda *_: None)),
    "a network is missing": lambda: effects(*make_ablation("factorial", lacking(interacting, {"gelu"}, range(3), ...))),
}  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", FACTORIALS)
def test_interactions_are_legible(name, width):
    check_figure(draw_interactions(FACTORIALS[name](), width=width))


def patches(figure, what=""):
    """Cell -> colour, of the patches of the map whose label begins so and names a pair of steps."""
    found = {patch.get_label(): patch.get_facecolor() for patch in axes_of(figure)["map"].patches}
    return {name.removeprefix(what): colour for name, colour in found.items() if name.startswith(what)}


def test_interactions_are_those_of_the_table():
    table = FACTORIALS["three steps"]().set_index("effect")
    figure = draw_interactions(table.reset_index())
    cells, framed = patches(figure), patches(figure, "frame of ")
    written = {}
    for text in axes_of(figure)["map"].texts:
        if not text.get_text().startswith("["):
            column, row = round(text.get_position()[0]), round(text.get_position()[1])
            written[FACTORS[row], FACTORS[column]] = text
    assert len(written) == 9
    for one, other in itertools.product(FACTORS, FACTORS):
        name = one if one == other else next(n for n in (f"{one} × {other}", f"{other} × {one}") if n in table.index)
        row = table.loc[name]
        assert written[one, other].get_text() == f"{row['estimate']:+.2f}".replace("-", "−")
        red, _, blue, _ = cells[f"{one} × {other}"]
        assert (blue > red) == (row["estimate"] > 0)
        found = row["verdict"] != "within noise"
        assert (f"{one} × {other}" in framed) == found == (written[one, other].get_weight() == "bold")
    assert "gelu × layer_norm" in framed and "large_kernel × gelu" not in framed


def test_what_a_fraction_cannot_tell_apart_is_hatched():
    figure = draw_interactions(half_of_four())
    hatched = patches(figure, "hatch of ")
    assert set(hatched) == {f"{one} × {other}" for one, other in itertools.permutations(FOUR, 2)}
    cells = patches(figure)
    for one, other in itertools.combinations(FOUR, 2):
        rest = [name for name in FOUR if name not in (one, other)]
        assert cells[f"{one} × {other}"] == cells[f"{rest[0]} × {rest[1]}"]
    assert "cannot tell the effect from others" in caption_of(figure)


def test_interactions_are_those_of_factorials_alone():
    with pytest.raises(RoadmapError, match="only a factorial study has interactions"):
        draw_interactions(effects(*make_ablation("leave-one-out", interacting)))


# --- colours

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
def test_the_colour_blind_tell_the_colours_apart(seen):
    for palette in (look.LINES, (look.OURS, look.PAPER, look.REFERENCE, look.INK)):
        for one, other in itertools.combinations(palette, 2):
            assert np.linalg.norm(lab(one, seen) - lab(other, seen)) > 20, (one, other)
