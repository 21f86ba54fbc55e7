"""The report: its HTML as text, and the page in a browser, at two widths, with keyboard, pointer and printer."""

import dataclasses
import io
import json
import re
import subprocess
import sys
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import browsers
import commands
import pandas as pd
import pytest
from ablations import make_ablation, make_networks, make_star, make_sweep, own_ladder, reference, steps_said
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from pypdf import PdfReader
from test_analysis import make_runs

import roadmap
from roadmap.formatting import label
from roadmap.planning.networks import plan_networks
from roadmap.planning.reading import load_spec
from roadmap.reporting.sections import section_ids
from roadmap.results.sentences import answer, headline
from roadmap.results.shown import interval_text
from roadmap.store.folder import FORMAT

PROJECT = Path(__file__).parents[1]
VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}
SCORES = {
    "resnet50": {0: 69.5, 1: 70.25, 2: 70.0},
    "modern_recipe": {0: 73.0, 1: 73.5, 2: 73.25},
    "stage_ratio": {0: 72.5, 1: 73.75, 2: None},
    "patchify_stem": {0: 74.0, 1: 73.0},
}
NASTY = [
    "<script>alert(1)</script>", "\"quoted\" & 'half' <b>bold</b>", "\u202eturned\u202c \u05e9\u05dc\u05d5\u05dd",
    "two\nlines", "a\x01control", "${code} {{ 7 * 7 }} {% raw %}",
]  # fmt: skip


class Page(HTMLParser):
    """What is in a page, read strictly: every element that is opened is closed, in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.headings, self.texts_of = [], [], [], [], {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("id")))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in ("th", "td", "dt", "dd", "li", "p", "caption"):
            self.handle_data(" ")
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        within = [tag for tag, _ in self.open]
        if "script" not in within and "style" not in within:
            self.texts.append(data)
            for _, name in self.open:
                self.texts_of[name] = self.texts_of.get(name, "") + data

    @property
    def text(self):
        return " ".join("".join(self.texts).split())

    def section(self, step):
        """The words of a step's section."""
        return " ".join(self.texts_of[section_ids([step])[step]].split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def keep(folder, runs, described=None, **said):
    """The folder of a kept study: its table, and what was asked."""
    folder.mkdir(parents=True)
    known = {"command": "roadmap run", "commit": "0123abcd" * 5, "dirty": False, "started": "2026-01-02T03:04:05+00:00"}
    runs = runs.assign(**{name: value for name, value in known.items() if name not in runs})
    if "signature" not in runs:
        runs = runs.assign(signature=[f"{number:016x}" for number in range(len(runs))])
    runs.to_csv(folder / "trajectory.csv", index=False)
    if described or said:
        asked = said.pop("asked", [{"signature": one} for one in runs["signature"]])
        content = {"format": FORMAT, "store": "gone", "runs": asked, "ablation": described or {"design": "ladder"}}
        (folder / "study.json").write_text(json.dumps(content | said))
    return folder


def keep_curves(folder, runs, epochs=3):
    rows = [
        {"step": run.step, "seed": run.seed, "epoch": epoch, "train_loss": 1 / epoch, "train_top1": 50.0 + epoch,
         "test_loss": 1 / epoch, "test_top1": run.top1 - epochs + epoch, "test_top5": 99.0, "lr_end": 0.1,
         "seconds": 1.0, "data_seconds": 0.1, "images": 100}
        for run in runs[runs["status"] == "done"].itertuples() for epoch in range(1, epochs + 1)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "curves.csv", index=False)


def small_ladder(folder):
    """Four rungs, one run of which failed, one missing, and a reference, with learning curves."""
    runs = make_runs(SCORES)
    runs = pd.concat([runs, pd.DataFrame(reference("timm/resnet18", [71.0, 72.5], stem_stride=None))])
    keep(folder, runs, classes=list("abcdefghij"), asked=[
        {"step": run.step, "seed": run.seed, "signature": f"{number:016x}"}
        for number, run in enumerate([*runs.itertuples(), pd.Series({"step": "patchify_stem", "seed": 2})])
    ])  # fmt: skip
    keep_curves(folder, runs)
    return folder


@pytest.fixture(scope="session")
def ladder_page(tmp_path_factory):
    """The report of `small_ladder`."""
    folder = commands.once(tmp_path_factory, "report", lambda root: roadmap.report(small_ladder(root / "ladder")))
    return folder / "ladder" / "report.html"


def check(path):
    """What must hold of every page; returns it, read."""
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>") and path.stat().st_size < 5 * 2**20
    assert page.all("html")[0]["lang"] == "en" and "default-src 'none'" in page.all("meta")[1]["content"]
    card = {one.get("property"): one["content"] for one in page.all("meta") if "property" in one}
    assert card["og:title"] and card["og:description"] in page.text and "og:image" not in card
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and not any(re.search(r"\s", one) for one in ids)
    for tag, attributes in page.tags:
        for name in ("href", "src", "srcset", "xlink:href", "action", "data", "poster"):
            target = attributes.get(name, "#")
            if target.startswith("#"):
                assert target == "#" or target[1:] in ids, target
            else:
                assert target.startswith("data:") or (tag == "a" and target.startswith("https://arxiv.org/")), target
        assert not any(name.startswith("on") for name in attributes)
        for one in re.findall(r"url\(#(.+?)\)", " ".join(filter(None, attributes.values()))):
            assert one in ids
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name, ids[0]) in ids
    for one in re.findall(r"url\((.*?)\)|@import", re.search("<style>(.*?)</style>", text, re.S)[1]):
        assert one.startswith('"data:font/woff;base64,')
    assert not re.search(
        r"\b(fetch|XMLHttpRequest|WebSocket|import)\b", re.search("<script>(.*?)</script>", text, re.S)[1]
    )
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert len(page.all("table")) == len(page.all("caption"))
    assert all("scope" in cell for cell in page.all("th"))
    assert all(drawing["aria-label"] and drawing["role"] in ("img", "group") for drawing in page.all("svg"))
    assert all(one["src"].startswith("data:image/png;base64,") for one in page.all("img"))
    assert not page.all("iframe") and not page.all("link")
    return page


# --- what it says


def test_the_ladders_page_says_what_its_tables_say(ladder_page):
    study, page = roadmap.load_study(ladder_page.parent), check(ladder_page)
    assert "13 runs: 12 done, 1 failed, 1 missing" in page.text
    assert page.text.count(headline(study.effects)) == 2  # of the document, and on it
    assert all(one in page.text for one in answer(study))
    assert page.text.count(interval_text(study.effects, study.matters)) == 1
    for step in study.steps.to_dict("records"):
        said = page.section(step["step"])
        if step["seeds"]:
            assert f"{step['top1_mean']:.2f}" in said and f"{step['seeds']} seed" in said
        if isinstance(step["against"], str):
            assert f"{step['gain']:+.2f} pp".replace("-", "−") in said
        if not pd.isna(step["gain_low"]):
            assert f"{step['gain_low']:+.2f} to {step['gain_high']:+.2f}".replace("-", "−") in said
            assert step["verdict"] in said
    assert "Seed 2 failed: the loss is nan in epoch 3." in page.section("stage_ratio")
    assert "Missing so far: seed 2." in page.section("patchify_stem")


def test_a_rung_is_explained_at_the_studys_size(ladder_page):
    said, page = Page(ladder_page.read_text()).section("patchify_stem"), check(ladder_page)
    rungs = roadmap.ladder().scaled(16, 0.34, stem_stride=2, num_classes=10)
    told = roadmap.explain("patchify_stem", rungs=rungs, image_size=32)
    assert told.why in said and "stem resnet patchify" in said and f"Layers that differ: {len(told.layers)} of" in said
    for asked in told.questions:
        assert " ".join(asked.question.split()) in said and " ".join(asked.answer.split()) in said
    assert f"{roadmap.ladder()['patchify_stem'].printed.top1:.2f}" in said
    drawn = [attributes["aria-label"] for attributes in page.all("svg")]
    assert any(words.startswith("Feature maps of patchify stem, before (stage ratio) and after") for words in drawn)
    assert any("Learning curves of stage ratio, patchify stem" in words for words in drawn)


def test_only_what_changed_is_tabulated(tmp_path):
    """Of costs, as the runs had them, and of settings: what two networks share is not told."""
    runs = make_runs({"resnet50": {0: 70.0, 1: 70.5}, "modern_recipe": {0: 73.0, 1: 72.0}})
    runs["gmacs"], runs["params"] = [0.01, 0.01, 0.02, 0.02], 5e6
    said = Page(roadmap.report(keep(tmp_path / "study", runs), diagrams=False).read_text()).section("modern_recipe")
    assert "MMACs 10 20 x2.00" in said and "parameters" not in said and "top-1 accuracy (%) 70.25 ± 0.35" in said


def test_without_diagrams_no_network_is_built(tmp_path):
    folder = small_ladder(tmp_path / "ladder")
    script = (
        f"import sys, roadmap\nprint(roadmap.report({str(folder)!r}, diagrams=False)); print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)  # noqa: S603
    assert shown.stdout.split()[-1] == "False"
    page = check(folder / "report.html")
    assert roadmap.ladder()["stage_ratio"].why in page.section("stage_ratio")
    assert not any(one["aria-label"].startswith("Feature maps") for one in page.all("svg"))


def value(steps, seed):
    """Top1 of a network: known, with little noise, but for one that fails and one that is missing."""
    if steps == {"gelu"} and seed == 1:
        return None
    return ... if steps == {"one"} and seed == 2 else 70.0 + 3 * len(steps) + (seed % 2) / 7


STUDIES = {
    "leave-one-out": make_ablation("leave-one-out", value),
    **{name: make_ablation(name, value, ["gelu", "one", "two"]) for name in ("one-at-a-time", "order", "factorial")},
    "sweep": make_sweep({"kernel_size": [3, 5, 9]}, value),
    "grid": make_sweep({"kernel_size": [3, 5], "norm": ["batch", "layer"]}, value, grid=True),
    "star": make_star(),
    "own steps": own_ladder(),
}


@pytest.mark.parametrize("name", STUDIES)
def test_every_design_has_its_page(tmp_path, name):
    runs, described = STUDIES[name]
    folder = keep(tmp_path / "study", runs, described)
    keep_curves(folder, runs)
    page, study = check(roadmap.report(folder)), roadmap.load_study(folder)
    links = [attributes["href"] for attributes in page.all("a") if attributes.get("class") == "row"]
    for effect in study.effects.to_dict("records"):
        said = page.section(effect["effect"])
        assert ("no result" if pd.isna(effect["estimate"]) else f"{effect['estimate']:+.2f}".replace("-", "−")) in said
        if isinstance(effect["verdict"], str):
            assert effect["verdict"] in said
        if effect["effect"] in roadmap.ladder().names and name != "own steps":
            assert roadmap.ladder()[effect["effect"]].why in said
        if " × " not in effect["effect"]:  # which some figures show in a map of their own
            assert f"#{section_ids([effect['effect']])[effect['effect']]}" in links
    drawn = [attributes["aria-label"] for attributes in page.all("svg")]
    for effect in study.effects.dropna(subset=["against", "network"]).to_dict("records"):
        known = {*study.curves["step"]}
        pair = [label(one) for one in (effect["against"], effect["network"]) if one in known]
        assert any(one.startswith(f"Learning curves of {', '.join(pair)}:") for one in drawn)
        assert label(effect["against"]) in page.section(effect["effect"])
    failed, missing = (runs["status"] == "failed").sum(), len(study.missing)
    assert not failed or f"{failed} failed" in page.text
    assert not missing or f"{missing} missing" in page.text


OWN = [{"name": "wider", "why": "More channels.", "width_factor": 1.5},
       {"name": "bigger", "why": "More pixels.", "kernel_size": 5}]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "befores"),
    [
        ({"steps": ["modern_recipe", *OWN]}, {"wider": "modern recipe", "bigger": "modern recipe+wider"}),
        ({"design": "one-at-a-time", "base": "modern_recipe", "steps": OWN}, {"bigger": "modern recipe"}),
        ({"design": "leave-one-out", "base": "modern_recipe", "steps": [*OWN, "gelu"]}, {"bigger": "gelu+wider"}),
        ({"design": "leave-one-out", "base": "gelu", "steps": ["large_kernel", OWN[0]]}, {"wider": "gelu"}),
        ({"steps": ["modern_recipe", "gelu", OWN[1] | {"adopted": False}]}, {"bigger": "gelu"}),
        ({"sweep": {"kernel_size": [3, 5]}, "base": "resnet50"}, {"kernel_size=5": "kernel size=3"}),
        ({"sweep": {"width_factor": [1.25, 1.5]}, "base": "resnet50"}, {"width_factor=1.5": "width factor=1.25"}),
        ({"sweep": {"layers": [["se"], ["grn"]]}, "base": "resnet50"}, {"layers=grn": "layers=se"}),
    ],
)
def test_own_steps_are_explained_on_the_network_that_the_study_puts_them_onto(tmp_path, asked, befores):
    spec = load_spec(width=16, **asked)
    networks = {network.name: [one.name for one in network.steps] for network in plan_networks(spec).networks}
    runs = make_networks(plan_networks(spec).question.name, {name: frozenset(way) for name, way in networks.items()},
                         lambda way, seed: 70.0 + len(way) + seed**2 / 9, 3, [])  # fmt: skip
    runs["steps"] = ["+".join(networks[name]) for name in runs["step"]]
    page = check(roadmap.report(keep(tmp_path / "study", runs, json.loads(json.dumps(plan_networks(spec).facts)))))
    drawn = [words for attributes in page.all("svg") if (words := attributes["aria-label"]).startswith("Feature maps")]
    for step, before in befores.items():
        assert "ratio" in page.section(step)
        shown = rf"Feature maps of {re.escape(step.replace('_', ' '))}, before \((.*\+)?{re.escape(before)}\)"
        assert any(re.match(shown, one) for one in drawn), drawn


def test_names_of_users_stay_text(tmp_path):
    networks = {"all": frozenset(NASTY)} | {f"all but {name}": frozenset(NASTY) - {name} for name in NASTY}
    runs = make_networks("leave-one-out", networks, lambda steps, seed: 70.0 + len(steps) + seed, 2, NASTY)
    runs = pd.concat([runs, pd.DataFrame(reference(NASTY[0] + NASTY[1], [71.0, None], reason=NASTY[0]))])
    runs = runs.assign(data=NASTY[1], command=NASTY[0], device_name=NASTY[5], recipe=NASTY[2], reason=NASTY[3])
    described = {"design": "leave-one-out", "factors": NASTY, "base": [], "steps": [
        {"name": name, "why": name, "section": name, "change": name, "adopted": True} for name in NASTY
    ]}  # fmt: skip
    folder = keep(tmp_path / "'<b>&", runs, described, classes=NASTY, spec={"name": NASTY[0], "data": NASTY[1]})
    path = roadmap.report(folder, tmp_path / "page.html")
    page = check(path)
    assert len(page.all("script")) == 1 and not page.all("b")
    for name in NASTY:
        shown = re.sub("[\x01\u202a-\u202e]", "\ufffd", name)
        assert " ".join(shown.split()) in page.text
    assert (
        not re.search("[\x00-\x08\u202a-\u202e]", path.read_text())
        and "49" not in page.texts_of[section_ids(NASTY)[NASTY[5]]]
    )


def test_a_kept_table_says_how_many_classes_there_were(tmp_path):
    kept = pd.read_csv(PROJECT / "results" / "cifar10" / "trajectory.csv")
    folder = keep(tmp_path / "study", kept[kept["step"].isin(["resnet50", "depthwise_conv"])])
    page = check(roadmap.report(folder))
    assert not (folder / "study.json").exists() and "There are no learning curves" in page.text
    parameters = kept.set_index("step").loc["depthwise_conv", "params"].iloc[0]
    assert f"{parameters / 1e6:.4g}" in page.section("depthwise_conv")
    assert "x0." in page.section("depthwise_conv")
    assert "Shown in its place on the paper's ladder, after patchify stem." in page.section("depthwise_conv")
    assert kept["commit"].iloc[0] in page.text and "roadmap run experiments/cifar10.yaml" in page.text
    assert f"roadmap reproduce {kept['signature'].iloc[0]}" in page.text


def test_the_yaml_of_a_page_asks_for_the_same_study(tmp_path):
    said = json.loads((PROJECT / "results" / "cifar10-order" / "study.json").read_text())["spec"]
    runs, described = STUDIES["order"]
    text = roadmap.report(keep(tmp_path / "study", runs, described, spec=said)).read_text()
    shown = next(part for part in Page(text).texts if part.startswith("name: cifar10-order"))
    (tmp_path / "again.yaml").write_text(shown)
    again = json.loads(json.dumps(dataclasses.asdict(load_spec(tmp_path / "again.yaml"))))
    again |= again.pop("question_settings")
    assert {name: again[name] for name in said if name in again} == {
        name: value for name, value in said.items() if name in again
    }
    assert "orders" in again and not any(
        said[name] for name in said.keys() - again.keys() - {"fingerprint", "fraction"}
    )


def test_differences_without_any_spread_are_no_findings(tmp_path):
    page = check(roadmap.report(keep(tmp_path / "study", *own_ladder()), diagrams=False))
    assert "No interval is known: nothing can be decided" in page.text


def test_a_rung_after_a_failed_start_is_not_called_the_start(tmp_path):
    runs = make_runs({"resnet50": {0: None}, "modern_recipe": {0: 71.0}, "stage_ratio": {0: 72.0}})
    page = check(roadmap.report(keep(tmp_path / "study", runs)))
    assert [step for step in runs["step"] if "the start" in page.texts_of[section_ids([step])[step]]] == ["resnet50"]


def test_a_single_run_has_a_page(tmp_path):
    page = check(roadmap.report(keep(tmp_path / "study", make_runs({"gelu": {0: 71.0}}))))
    assert "No two networks to compare" in page.text and "One seed" in page.text


# --- the command


def test_the_command_says_where_the_page_is(tmp_path):
    folder = keep(tmp_path / "study", make_runs({"resnet50": {0: 70.0}}))
    assert commands.call("report", folder).out.strip() == str(folder / "report.html")
    check(folder / "report.html")
    before = (folder / "report.html").read_bytes()
    shown = commands.call("report", folder, "--out", "here.html", cwd=tmp_path)
    assert shown.out.strip() == "here.html" and (tmp_path / "here.html").read_bytes() == before


def test_anybodys_table_of_runs_has_its_page(tmp_path):
    rows = [(name, seed, 0.7 + gain + seed / 1000) for name, gain in (("base", 0), ("mixup", 0.02), (NASTY[0], -0.03))
            for seed in range(3)]  # fmt: skip
    pd.DataFrame(rows, columns=["model", "seed", "val_acc"]).to_csv(tmp_path / "runs.csv", index=False)
    words = ("--design", "baseline", "--metric", "val_acc", "--step", "model")
    shown = commands.call("report", "runs.csv", *words, cwd=tmp_path)
    assert shown.out.strip() == "runs-report.html", shown.err
    page = check(tmp_path / "runs-report.html")
    said = page.section("mixup")
    assert "+0.020" in said and "gain" in said and "0.701" in said and "0.721" in said
    assert "−0.030" in page.section(NASTY[0]) and NASTY[0] in page.text
    assert not re.search("GMACs|top-1|ImageNet|pp|roadmap reproduce|arXiv", page.text)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["study", "--metric", "acc"], "--metric is for a table of runs, but study is not a file"),
        (["study/trajectory.csv", "--metric", "acc"], "study/trajectory.csv: the table has no column 'acc'"),
        (["nothing"], "there is no folder nothing"),
        (["study", "--out", "study"], "study is a folder: name the file that the report is to be"),
        (["study", "--out", "gone/x.html"], "gone/x.html cannot be written: there is no folder gone"),
        (["study", "--out", "study/trajectory.csv/x.html"], "there is no folder study/trajectory.csv"),
        (["study", "--out", "x" * 300], "file name too long"),
        (["empty"], "empty holds no study (no study.json)"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(tmp_path, words, sentence):
    keep(tmp_path / "study", make_runs({"resnet50": {0: 70.0}}))
    (tmp_path / "empty").mkdir()
    shown = commands.call("report", *words, cwd=tmp_path)
    assert shown.code == 2 and sentence in shown.err and shown.err.count("\n") == 1 and not shown.out
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "study", "trajectory.csv"]


# --- in a browser


@pytest.fixture(scope="module")
def chromium():
    with browsers.browser() as opened:
        yield opened


@pytest.fixture
def wide(chromium, ladder_page):
    with browsers.visit(chromium, ladder_page, 1440) as page:
        yield page


@pytest.fixture
def phone(chromium, ladder_page):
    with browsers.visit(chromium, ladder_page, 390) as page:
        yield page


def row_of(page, step):
    return page.locator(f"a.row[href='#step-{step}']:visible")


def is_open(page, step):
    return page.evaluate("id => document.getElementById(id).open", f"step-{step}")


def mean_of(step):
    return sum(filter(None, SCORES[step].values())) / sum(top1 is not None for top1 in SCORES[step].values())


def test_the_first_screen_answers(wide, phone):
    for page in (wide, phone):
        for part in ("h1", "#figure-main svg:visible", ".answer p >> nth=0", ".answer p >> nth=2"):
            box = page.locator(part).bounding_box()
            assert box["y"] >= 0 and box["y"] + box["height"] <= 800, part
    assert wide.evaluate("scrollY") == 0 and not wide.locator("dl.facts").first.is_visible()


def test_pointing_at_a_row_shows_its_numbers(wide):
    tip = wide.locator(".tip")
    assert not tip.is_visible()
    for step, gain in (("modern_recipe", "+3.33 pp"), ("patchify_stem", "+0.38 pp")):
        row_of(wide, step).hover()
        assert tip.inner_text().splitlines()[:2] == [step.replace("_", " "), gain]
        box, place = row_of(wide, step).bounding_box(), tip.bounding_box()
        assert place["x"] >= 0 and place["x"] + place["width"] <= 1440 and abs(place["y"] - box["y"]) < 200
    wide.keyboard.press("Escape")
    assert not tip.is_visible()
    assert not wide.locator("a.row title").count()  # which would be shown beside it


#: Middle and words of every text of the main figure that is seen, and where a click on a place leads to.
TEXTS = """() => [...document.querySelectorAll("#figure-main text")].filter(one => one.checkVisibility()).map(text => {
  const box = text.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2, text.textContent.trim()];
})"""
LINK = "([x, y]) => document.elementFromPoint(x, y)?.closest('a.row')?.getAttribute('href') ?? null"


def check_rows(page, names):
    """A click on any name in the main figure leads to the section of that name, whatever the order of the rows."""
    page.locator("#figure-main svg:visible").scroll_into_view_if_needed()
    seen = {}
    for x, y, text in page.evaluate(TEXTS):
        for name in names:
            if text and name_of_row(name).startswith(text) and text == name_of_row(name)[: len(text)] and len(text) > 3:
                seen[name] = page.evaluate(LINK, [x, y])
    assert seen == {name: f"#{section_ids([name])[name]}" for name in names}


def name_of_row(name):
    return name if "/" in name else label(name)


def test_a_row_leads_to_the_step_whose_name_stands_there(wide, phone):
    for page in (wide, phone):
        check_rows(page, ["resnet50", "modern_recipe", "stage_ratio", "patchify_stem", "timm/resnet18"])


@pytest.mark.parametrize("kept", ["cifar10-leave-one-out", "cifar10-order"])
def test_ranked_rows_with_losses_lead_to_their_steps(chromium, tmp_path, kept):
    study = roadmap.load_study(PROJECT / "results" / kept)
    path = roadmap.report(study, tmp_path / "page.html", diagrams=False)
    check(path)
    assert (study.effects["estimate"] < 0).any()
    for width in (1440, 390):
        with browsers.visit(chromium, path, width) as page:
            check_rows(page, [*study.effects["effect"]])


def test_a_row_opens_its_step_in_place(wide, phone):
    for page in (wide, phone):
        assert not is_open(page, "patchify_stem")
        row_of(page, "patchify_stem").click()
        assert page.evaluate("location.hash") == "#step-patchify_stem"
        page.locator("#step-patchify_stem[open]").wait_for()
        heading = page.get_by_role("heading", name="patchify stem")
        assert 0 <= heading.bounding_box()["y"] < 400
        page.locator("#step-patchify_stem > summary").click()
        assert not is_open(page, "patchify_stem")
        page.evaluate("scrollTo(0, 0)")
        row_of(page, "patchify_stem").click()  # whose address is there already
        assert is_open(page, "patchify_stem") and not is_open(page, "stage_ratio")


def test_an_address_opens_its_step(chromium, ladder_page):
    with browsers.visit(chromium, ladder_page, 1440) as page:
        page.goto(f"{ladder_page.as_uri()}#step-stage_ratio")
        page.locator("#step-stage_ratio[open]").wait_for()
        page.goto(f"{ladder_page.as_uri()}?appendix")
        assert page.evaluate("document.querySelectorAll('details:not([open])').length") == 0


def test_the_keyboard_goes_everywhere(wide):
    wide.keyboard.press("Tab")
    assert wide.evaluate("document.activeElement.className") == "skip"
    assert wide.locator(".skip").bounding_box()["x"] >= 0
    seen = []
    for _ in range(60):
        wide.keyboard.press("Tab")
        href = wide.evaluate("document.activeElement.getAttribute('href')")
        if wide.evaluate("document.activeElement.className.baseVal") == "row":
            seen.append(href.removeprefix("#step-"))
        if href == "#step-stage_ratio" and seen:
            break
    assert seen == ["resnet50", "modern_recipe", "stage_ratio"]
    assert "−0.12 pp" in wide.locator(".tip").inner_text()
    wide.keyboard.press("Enter")
    wide.locator("#step-stage_ratio[open]").wait_for()
    wide.locator("#step-stage_ratio > summary").focus()
    wide.keyboard.press("ArrowDown")
    assert is_open(wide, "patchify_stem") and not is_open(wide, "stage_ratio")
    assert wide.evaluate("document.activeElement.parentElement.id") == "step-patchify_stem"
    wide.keyboard.press("ArrowUp")
    assert is_open(wide, "stage_ratio") and not is_open(wide, "patchify_stem")
    question = wide.locator("#step-stage_ratio details.ask").first
    assert not question.locator("p").is_visible()
    question.locator("summary").focus()
    wide.keyboard.press("Enter")
    assert question.locator("p").is_visible()


SMALLEST = """() => {
  const sizes = [];
  for (const text of document.querySelectorAll("figure svg text, p, td, th, dd, dt, li, summary, figcaption, a")) {
    if (!text.checkVisibility() || !text.textContent.trim() || text.closest(".skip")) continue;
    const svg = text.closest("svg");
    sizes.push([parseFloat(getComputedStyle(text).fontSize) * (svg ? svg.getScreenCTM().a : 1), !!svg]);
  }
  const least = inside => Math.min(...sizes.filter(size => size[1] === inside).map(size => size[0]));
  return [least(false), least(true)];
}"""


@pytest.mark.parametrize("width", [1440, 768, 360])
def test_the_page_is_readable_at_every_width(chromium, ladder_page, width):
    with browsers.visit(chromium, ladder_page, width) as page:
        page.goto(f"{ladder_page.as_uri()}?appendix")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        words, drawn = page.evaluate(SMALLEST)
        assert words >= 12 and drawn >= 7.4
        figures = page.locator("figure svg:visible")
        assert (
            figures.count() == 3 + 4 + 5
        )  # the ladder, cost and operations; diagrams of rungs; curves of all networks
        for box in (figures.nth(number).bounding_box() for number in range(figures.count())):
            assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["height"] > 100
        measure = page.evaluate("Math.max(...[...document.querySelectorAll('p')].map(one => one.clientWidth))")
        assert measure <= 900
        effects = page.locator("#caption-effects + thead th")
        for number, name in enumerate(("effect", "points", "interval", "verdict")):  # seen without scrolling sideways
            assert effects.nth(number).inner_text() == name
            assert effects.nth(number).bounding_box()["x"] + effects.nth(number).bounding_box()["width"] <= width
        faces = page.evaluate(
            "document.fonts.ready.then(all => [...all].map(one => [one.weight, one.style, one.status]))"
        )
        assert {("normal", "normal", "loaded"), ("bold", "normal", "loaded")} <= {*map(tuple, faces)}


def test_the_page_works_without_scripts(chromium, ladder_page):
    with browsers.visit(chromium, ladder_page, 1440, script=False) as page:
        title = row_of(page, "stage_ratio").locator("title").text_content()
        assert title.startswith("stage ratio\n−0.12 pp\n")
        assert not page.locator("#appendix").is_visible()
        row_of(page, "stage_ratio").click()
        assert page.url.endswith("#step-stage_ratio")
        page.locator("#step-stage_ratio > summary").click()
        assert page.locator("#step-stage_ratio table").is_visible()


def printed_text(page, path):
    page.pdf(path=path, format="A4")
    pages = PdfReader(path).pages
    text = unicodedata.normalize("NFKC", " ".join(one.extract_text() for one in pages))
    return len(pages), " ".join(text.split())


def test_print_has_what_is_open(wide, tmp_path):
    wide.emulate_media(media="print")
    assert not wide.locator("nav:visible").count() and not wide.locator("button:visible").count()
    assert wide.locator("#figure-main svg:visible").count() == 1
    pages, text = printed_text(wide, tmp_path / "page.pdf")
    asked = [" ".join(one.answer.split())[:60] for one in roadmap.explain("stage_ratio").questions]
    assert pages <= 3 and "+3.33 pp" in text and not any(one in text for one in asked)
    wide.emulate_media(media="screen")
    wide.locator("#appendix").click()
    pages, text = printed_text(wide, tmp_path / "all.pdf")
    for step in SCORES:
        assert step.replace("_", " ").replace("resnet50", "ResNet-50") in text
    assert all(one in text for one in asked) and "Layers that differ" in text and "stages.2.blocks" in text
    wide.locator("#appendix").click()
    assert wide.evaluate("document.querySelectorAll('details[open]').length") == 0


def test_nothing_stands_in_the_way_of_assistive_technology(wide, phone):
    for page, scheme in ((wide, "light"), (phone, "dark")):
        page.emulate_media(color_scheme=scheme)
        page.locator("#appendix").click()
        page.evaluate("scrollTo(0, 0)")
        found = Axe().run(page).response
        assert [(rule["id"], [node["html"] for node in rule["nodes"]][:2]) for rule in found["violations"]] == []
        assert "color-contrast" in [rule["id"] for rule in found["passes"]]
    assert row_of(wide, "stage_ratio").get_attribute("aria-label").startswith("stage ratio, −0.12 pp, ")


def test_figures_are_light_on_dark(chromium, ladder_page):
    """The figure's paper has the page's own colour, and what is darkest on it the lightest."""
    with browsers.visit(chromium, ladder_page, 1440) as page:
        page.emulate_media(color_scheme="dark")
        picture = Image.open(io.BytesIO(page.locator("#figure-main").screenshot())).convert("L")
        assert picture.getpixel((2, 2)) < 30 and picture.getextrema()[0] >= 10 and picture.getextrema()[1] > 190


def test_names_of_users_run_nothing(chromium, tmp_path):
    runs = make_runs({"resnet50": {0: 70.0}})
    runs = pd.concat([runs, pd.DataFrame(reference(name, [71.0])[0] for name in NASTY)]).assign(data=NASTY[0])
    path = roadmap.report(keep(tmp_path / "study", runs))
    with browsers.visit(chromium, path, 360) as page:
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        for name in NASTY[:2]:
            page.locator(f'a.row[href="#{section_ids([name])[name]}"]:visible').hover()
            assert name in page.locator(".tip").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_name_as_long_as_a_line_stays_on_the_page(chromium, tmp_path):
    names = ["x" * 120, "short"]
    networks = {"resnet50": frozenset(), names[0]: frozenset(names[:1]), names[1]: frozenset(names)}
    runs = make_networks("ladder", networks, lambda steps, seed: 70.0 + len(steps) + seed / 8, 2, names)
    described = {"design": "ladder", "steps": steps_said(names)}
    path = roadmap.report(keep(tmp_path / "study", runs, described))
    for width in (1280, 360):
        with browsers.visit(chromium, path, width) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= width
