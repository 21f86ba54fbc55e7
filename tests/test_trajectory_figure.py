"""The trajectory, legible whatever rungs it has, at both widths; and what it draws beyond dots and bars."""

import itertools

import numpy as np
import pandas as pd
import pytest
from ablations import own_ladder, reference
from legible import check_legible
from test_analysis import full_scores, make_runs

from roadmap.analysis.figure import DASHES, draw_trajectory
from roadmap.analysis.tables import summarize
from roadmap.checks import RoadmapError
from roadmap.reference import sections
from roadmap.rungs import ladder

WIDTHS = ["page", "column"]
#: (width, paper) of every figure of a row of tests, in turn, so that each shape is drawn in each of them.
SHAPES = list(itertools.product(WIDTHS, [False, True]))
LONG = "timm/convnext_xxlarge.clip_laion2b_soup_ft_in12k_in1k_and_a_name_that_goes_on"


def of_steps(steps, regime="resnet50", seeds=3):
    scores = full_scores(regime, seeds)
    return make_runs({step: scores[step] for step in ladder(regime).names if step in steps}, regime=regime)


def subsets(count=20):
    """(regime, steps, seeds) of random ladders."""
    generator = np.random.default_rng(0)
    for number in range(count):
        regime = ["resnet50", "resnet200"][number % 2]
        names = ladder(regime).names
        chosen = generator.choice(names, generator.integers(2, len(names)), replace=False)
        yield regime, [str(name) for name in chosen], 1 + number % 5


def with_references(runs, tops, gmacs=0.02):
    """The runs and references, named here, with these accuracies."""
    rows = [row for name, top in tops.items() for row in reference(name, [top, top + 0.2, top - 0.1], gmacs)]
    return pd.concat([runs, pd.DataFrame(rows)])


def lost(runs):
    """The same where some runs failed, some are missing, and of one rung nothing is left."""
    runs = runs.copy()
    failed = (runs["step"] == "gelu") | ((runs["step"] == "stage_ratio") & (runs["seed"] == 1))
    runs.loc[failed, ["status", "top1"]] = ["failed", np.nan]
    return runs[(runs["step"] != "layer_norm") | (runs["seed"] == 0)]


def hard():
    """(runs, ablation) of ladders that are hard to draw, by name."""
    full = of_steps(ladder().names)
    own, described = own_ladder()
    names = {"squeeze": "a step whose name is long and goes on and on", "squeeze_more": "W" * 60,
             "stage_ratio": "another_step_that_has_a_name_without_spaces_$x$_or_an_end"}  # fmt: skip
    renamed = own.assign(
        step=own["step"].replace(names), steps=[_renamed(steps, names) for steps in own["steps"]], data="/data/" * 30
    )
    steps = [
        step | {"name": names.get(step["name"], step["name"]), "change": "described in many words " * 5}
        for step in described["steps"]
    ]
    noisy = full.assign(top1=full["top1"] + 40 * (full["seed"] - 1) / 3)
    return {
        "every rung": (full, None),
        "every rung of the other regime": (of_steps(ladder("resnet200").names, "resnet200", seeds=5), None),
        "one seed": (of_steps(ladder().names, seeds=1), None),
        "two seeds, far apart": (noisy[noisy["seed"] < 2], None),
        "lost runs": (lost(full), None),
        "all failed": (full.assign(status="failed", top1=np.nan), None),
        "a reference": (with_references(full, {"swin_tiny": 61.0}), None),
        "five references alike": (
            with_references(full, {f"reference {n}": 61.0 + n / 100 for n in range(4)} | {LONG: 61.05}, 123.4), None,
        ),
        "a failed reference": (pd.concat([full, pd.DataFrame(reference("vit_small", [None, None]))]), None),
        "references alone": (with_references(full[:0], {"swin_tiny": 61.0, LONG: 62.0}), None),
        "the paper's size": (full.assign(image_size=224, width=64, depth=1.0, stem_stride=4, gmacs=4.56), None),
        "matched": (full.assign(match="gmacs by width", match_factor=full["gmacs"] * 7.123), None),
        "own steps": own_ladder(),
        "long names": (renamed, described | {"steps": steps}),
    }  # fmt: skip


def _renamed(steps, names):
    return "+".join(names.get(step, step) for step in steps.split("+"))


HARD = hard()


@pytest.mark.parametrize("name", HARD)
def test_every_text_can_be_read(name):
    """Each at both widths, one of them with the paper's numbers; the fullest with them at both."""
    runs, ablation = HARD[name]
    turn = [*HARD].index(name) % 2
    for width, paper in SHAPES if name in ("every rung", "a reference") else (SHAPES[turn], SHAPES[3 - turn]):
        check_legible(draw_trajectory(runs, paper=paper, ablation=ablation, width=width))


@pytest.mark.parametrize("regime", ["resnet50", "resnet200"])
def test_every_single_rung_can_be_read(regime):
    for number, step in enumerate(ladder(regime).names):
        width, paper = SHAPES[number % 4]
        check_legible(draw_trajectory(of_steps([step], regime), paper=paper, width=width))


def test_any_subset_of_the_rungs_can_be_read():
    for number, (regime, steps, seeds) in enumerate(subsets()):
        width, paper = SHAPES[number % 4]
        check_legible(draw_trajectory(of_steps(steps, regime, seeds), paper=paper, width=width))


def test_a_width_that_there_is_not():
    with pytest.raises(RoadmapError, match="width is 'wide', but must be one of page, column"):
        draw_trajectory(of_steps(["gelu"]), width="wide")


# --- what is drawn


def axes_of(figure):
    return {axes.get_label(): axes for axes in figure.axes}


def titles_in(figure):
    """Title of a group -> the rows that its text stands between."""
    return {text.get_text().replace("\n", " "): text.get_position()[1] for text in axes_of(figure)["groups"].texts}


def bands_in(figure):
    """Title of a shaded group -> its rows, from and to."""
    patches = axes_of(figure)["groups"].patches
    return {patch.get_label(): (patch.get_y(), patch.get_y() + patch.get_height()) for patch in patches}


def test_groups_are_the_papers_sections():
    figure = draw_trajectory(of_steps(ladder().names))
    titles = {section.title: [] for section in sections().values()}
    for row, rung in enumerate(ladder()):
        if rung.section in sections():
            titles[sections()[rung.section].title].append(row)
    assert titles_in(figure) == {title: np.mean(rows) for title, rows in titles.items()}
    assert list(titles) == ["training techniques", "macro design", "ResNeXt-ify", "inverted bottleneck",
                            "large kernel sizes", "micro design"]  # fmt: skip
    for title, (top, bottom) in bands_in(figure).items():
        assert (top, bottom) == (min(titles[title]) - 0.5, max(titles[title]) + 0.5)
    assert list(bands_in(figure)) == ["macro design", "inverted bottleneck", "micro design"]


def test_steps_of_no_section_are_in_no_group():
    runs, ablation = own_ladder()
    assert titles_in(draw_trajectory(runs, ablation=ablation)) == {"training techniques": 1, "macro design": 4}
    runs, ablation = HARD["references alone"]
    assert not titles_in(draw_trajectory(runs, ablation=ablation))


def test_a_column_has_words_for_the_groups():
    titles = titles_in(draw_trajectory(of_steps(ladder().names), width="column"))
    assert list(titles) == [section.short for section in sections().values()]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_row_of_a_column_is_where_it_is_on_a_page(width):
    runs = of_steps(ladder().names, seeds=5)
    summary = summarize(runs)
    axes = axes_of(draw_trajectory(runs, width=width))["accuracy"]
    assert axes.get_ylim() == (len(summary) - 0.5, -0.5)
    drawn = [(bars.lines[0].get_xdata()[0], bars.lines[0].get_ydata()[0]) for bars in axes.containers]
    assert drawn == list(zip(summary["top1_mean"], summary.index, strict=True))
    ends = [[end for end, _ in bars.lines[2][0].get_segments()[0]] for bars in axes.containers]
    assert np.allclose(ends, summary[["top1_low", "top1_high"]])


def test_references_are_lines_through_the_rungs():
    runs = with_references(of_steps(ladder().names), {"swin_tiny": 61.0, "vit_small": 61.0, "resnet18": 59.0})
    summary = summarize(runs).set_index("step")
    axes = axes_of(draw_trajectory(runs))["accuracy"]
    lines = [line for line in axes.get_lines() if line.get_label().startswith("line of ")]
    assert [line.get_label() for line in lines] == ["line of swin_tiny", "line of vit_small", "line of resnet18"]
    for row, line in enumerate(lines, start=17):
        mean = summary.loc[line.get_label().removeprefix("line of "), "top1_mean"]
        assert (list(line.get_xdata()), list(line.get_ydata())) == ([mean, mean], [row, -0.5])
    assert len({line._unscaled_dash_pattern for line in lines}) == 3 <= len(set(DASHES))


def test_an_interval_that_is_very_long_goes_on_beyond_the_axis():
    runs = make_runs({"gelu": {0: 60.0, 1: 61.0}, "fewer_norms": {0: 60.0, 1: 60.1}})
    figure = draw_trajectory(runs)
    low, high = axes_of(figure)["accuracy"].get_xlim()
    summary = summarize(runs)
    assert high - low < 5 < summary["top1_high"].max() - summary["top1_low"].min()
    assert "goes on beyond it" in " ".join(figure.texts[0].get_text().split())
    calm = draw_trajectory(make_runs({"gelu": {0: 60.0, 1: 60.1, 2: 60.2}, "fewer_norms": {0: 60.0, 1: 61.0, 2: 62.0}}))
    assert "goes on beyond it" not in " ".join(calm.texts[0].get_text().split())


def test_lost_runs_are_told_at_both_widths():
    runs = lost(of_steps(ladder().names))
    page = [text.get_text() for text in axes_of(draw_trajectory(runs))["accuracy"].texts]
    assert {"3 of 3 failed", "2 of 3 missing"} <= {text.rpartition("; ")[2].replace("\n", " ") for text in page}
    column = draw_trajectory(runs, width="column")
    assert sum(text.get_text().endswith("*") for text in axes_of(column)["accuracy"].texts) == 3
    caption = " ".join(column.texts[0].get_text().split())
    assert "*: stage ratio 1 of 3 failed; gelu 3 of 3 failed; layer norm 2 of 3 missing." in caption
