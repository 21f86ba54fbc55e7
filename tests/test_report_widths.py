"""The report of every question, with gains and losses, in a browser at the widths of a screen, a tablet and a phone."""

import re

import browsers
import commands
import pytest
from ablations import make_ablation, make_star, make_sweep
from test_analysis import make_runs
from test_report import LINK, PROJECT, SMALLEST, TEXTS, Page, keep, keep_curves, printed_text

import roadmap
from roadmap.cost.counting import count
from roadmap.explaining import outline
from roadmap.explaining.outline import build_on_meta
from roadmap.formatting import label

WIDTHS = (1440, 768, 390)
#: What each step and level is worth, in the order in which no figure shows them.
WORTH = {"gelu": -3, "one": 2, "two": -1, "kernel_size=5": -2, "kernel_size=9": 1.5, "norm=layer": -1}
STEPS = ["gelu", "one", "two"]


def value(steps, seed):
    return 70 + sum(WORTH.get(step, 0) for step in steps) + ({*STEPS[:2]} <= {*steps}) + seed / 8


def by_name(effect):
    return label(effect["effect"])


def by_estimate(effect):
    return f"{effect['estimate']:+.1f}".replace("-", "−")


def by_interval(effect):
    return f"{effect['low']:+.1f} to {effect['high']:+.1f}".replace("-", "−")


#: A study of each question, and the words in its main figure that stand where an effect does.
STUDIES = {
    "ladder": ((make_runs({"resnet50": {0: 70, 1: 70.5}, "modern_recipe": {0: 68, 1: 68.5}, "stage_ratio": {0: 72,
               1: 72.5}, "patchify_stem": {0: 69, 1: 69.5}}), None), by_name),
    **{name: (make_ablation(name, value, STEPS), by_name)
       for name in ("leave-one-out", "one-at-a-time", "order", "factorial")},
    "sweep": (make_sweep({"kernel_size": [3, 5, 9]}, value), by_estimate),
    "grid": (make_sweep({"kernel_size": [3, 5], "norm": ["batch", "layer"]}, value, grid=True), by_interval),
    "star": (make_star(), by_name),
}  # fmt: skip


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """A folder with the study and the page of every question."""

    def make(root):
        for name, ((runs, described), _) in STUDIES.items():
            folder = keep(root / name, runs, described)
            keep_curves(folder, runs)
            roadmap.report(folder, diagrams=False)

    return commands.once(tmp_path_factory, "widths", make)


@pytest.fixture(scope="module")
def chromium():
    with browsers.browser() as opened:
        yield opened


@pytest.mark.parametrize("name", STUDIES)
def test_every_question_answers_at_every_width(chromium, pages, name):
    effects, words = roadmap.load_study(pages / name).effects.to_dict("records"), STUDIES[name][1]
    assert name == "star" or min(effect["estimate"] for effect in effects) < 0
    ids = {}
    for width in WIDTHS:
        with browsers.visit(chromium, pages / name / "report.html", width) as page:
            first = [page.locator(part).bounding_box() for part in ("h1", "#figure-main svg:visible", ".answer")]
            assert width == 768 or all(0 <= box["y"] <= box["y"] + box["height"] <= 800 for box in first)
            texts = [(x, y, text) for x, y, text in page.evaluate(TEXTS) if text]
            for effect in effects:
                places = [place for place in texts if re.match(re.escape(words(effect)) + r"( [▲▼■○◇])?$", place[2])]
                assert places, words(effect)
                ids[effect["effect"]] = page.evaluate(LINK, places[0][:2])
                heading = page.locator(f"{ids[effect['effect']]} h3")
                assert heading.text_content().split(maxsplit=1)[1] == label(effect["effect"])
            page.mouse.click(*places[0][:2])
            page.locator(f"{ids[effect['effect']]}[open]").wait_for()
            curves = page.locator(f"{ids[effect['effect']]} figure svg:visible")
            assert curves.count() == bool(effect["network"] == effect["network"] and effect["network"])
            page.goto(f"{(pages / name / 'report.html').as_uri()}?appendix")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            written, drawn = page.evaluate(SMALLEST)
            assert written >= 12 and drawn >= 7.4
            contents = page.locator(".contents")
            page.evaluate("scrollTo(0, document.body.scrollHeight)")
            assert (contents.bounding_box()["y"] == 0) == (width == 1440)
    assert len(set(ids.values())) == len(effects)


def kernels(folder):
    """A ladder's folder whose runs tell what each network costs; its 20 channels no other test builds."""
    runs = make_runs({"modern_recipe": {0: 70}, "move_up_depthwise": {0: 69}, "large_kernel": {0: 71}}, width=20)
    costs = {"gmacs": [0.001, 0.002, 0.003], "params": [1e6, 2e6, 3e6], "activations": [1e3, 2e3, 3e3]}
    return keep(folder, runs.assign(**costs), classes=list("abcdefghij"))


def test_a_network_is_built_once_and_its_recorded_cost_not_counted_again(tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr("roadmap.cost.counting.count", lambda *_: pytest.fail("a run has this cost"))
    monkeypatch.setattr(outline, "build_on_meta", lambda design: built.append(design) or build_on_meta(design))
    text = roadmap.report(kernels(tmp_path / "study")).read_text()
    assert len(built) == len(set(built)) == 4  # the three, and that which move_up_depthwise stands behind
    assert "2</td><td>3</td><td>x1.50" in text


def test_the_page_tells_how_networks_look_around(tmp_path):
    """A 7x7 depthwise convolution has 49 / 9 times the operations of a 3x3 one, and sees further."""
    page = Page(roadmap.report(kernels(tmp_path / "study")).read_text())
    found = re.search(r"spatial convolutions, % of operations (\d+) (\d+)", page.section("large_kernel"))
    rungs = roadmap.ladder().scaled(20, 0.34, stem_stride=2, num_classes=10)
    small, large = (count(rungs[name].design, 32).gmacs for name in ("move_up_depthwise", "large_kernel"))
    spatial = (large - small) / (49 - 9)  # of one weight a channel
    assert [*map(int, found.groups())] == [round(100 * 9 * spatial / small), round(100 * 49 * spatial / large)]
    half = re.search(r"half of the effective receptive field, px (\d+) (\d+)", page.section("large_kernel"))
    assert 2 <= int(half[1]) < int(half[2]) <= 32
    assert "half of the effective" not in page.section("modern_recipe")
    drawn = [attributes["aria-label"] for attributes in page.all("svg")]
    assert sum(one.startswith("Effective receptive fields") for one in drawn) == 2  # wide and narrow


@pytest.mark.parametrize("kept", ["cifar10", "cifar10-leave-one-out", "cifar10-order", "embedded"])
def test_a_kept_study_answers_on_the_first_screen_and_prints_on_few_pages(chromium, tmp_path, kept):
    path = roadmap.report(PROJECT / "results" / kept, tmp_path / "page.html", diagrams=False)
    for width in (1440, 390):
        with browsers.visit(chromium, path, width) as page:
            first = [page.locator(part).bounding_box() for part in ("h1", "#figure-main svg:visible", ".answer")]
            assert all(0 <= box["y"] <= box["y"] + box["height"] <= 800 for box in first)
            pages, _ = printed_text(page, tmp_path / "page.pdf")
            assert pages <= 5  # of six, the last of which is for the figures of built networks
