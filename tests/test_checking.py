"""What is checked of every step: the ladder and what is shipped pass, and each way to be wrong is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from commands import call

import roadmap
from roadmap import Design, RoadmapError
from roadmap.checking.design import check_design, check_layers, check_step
from roadmap.checking.trials import CHECKS
from roadmap.ladders.steps import compose, registered_steps
from roadmap.network import layers
from roadmap.network.layers import load_plugins

SMALL = roadmap.ladder().scaled(width=8, depth=1 / 3)
START, END = SMALL.start.design, SMALL["separate_downsample"].design
TINY = {"start": START.replace(blocks=(1, 1), widths=(8, 16)), "end": END.replace(blocks=(1, 1), widths=(8, 16))}
NAMES = ["builds", *(name for name, _, _ in CHECKS)]


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    layers.load_installed()
    monkeypatch.setattr(layers, "_layers", dict(layers._layers))
    monkeypatch.setattr(layers, "_loaded", dict(layers._loaded))


@pytest.mark.parametrize("step", SMALL.names)
def test_every_rung_passes(step):
    rung = SMALL[step]
    findings = check_design(rung.design, None if rung.design == rung.before else rung.before)
    assert [finding for finding in findings if not finding.ok] == []
    asked = rung.before is not None and rung.design != rung.before
    assert [finding.check for finding in findings] == [name for name in NAMES if asked or name != "changes"]


def with_layer(base: Design, name: str, **options) -> Design:
    return base.replace(layers={name: options})


@pytest.mark.parametrize("name", ["grn", "se", "resnet_d_stem", "replknet_kernels"])
@pytest.mark.parametrize("where", ["start", "end"])
def test_every_shipped_layer_passes(name, where):
    base = {"start": START, "end": END}[where].replace(blocks=(1, 1, 1, 1))
    assert [finding for finding in check_design(with_layer(base, name), base) if not finding.ok] == []


@pytest.mark.parametrize("end", [False, True])
def test_resnext_passes(end):
    steps = roadmap.ladders.rungs.ladder_steps()
    steps = [step for step in steps if step.adopted] if end else []
    start = roadmap.ladders.rungs.start_design("resnet50")
    both = [compose(start, path, 32, 1 / 3) for path in (steps, [*steps, registered_steps["resnext_32x4d"]])]
    assert [finding for finding in check_design(both[1], both[0]) if not finding.ok] == []


def module(forward: str, more: str = "") -> str:
    return f"""
import torch
from torch import nn
from roadmap.network.layers import layer

class Own(nn.Module):
    def __init__(self, site):
        super().__init__()
        self.site = site
        self.norm = nn.BatchNorm2d(site.incoming)
        {more}

    def forward(self, x):
        {forward}
"""


def built(place: str, code: str = "Own(site)") -> str:
    return f"\n@layer('own', {place!r}, 'x')\ndef build(site):\n    return {code}\n"


BROKEN = {
    "wrong channels": (
        "branch", module("return torch.cat([x, x], dim=1)"), "end", "shapes",
        "the layer 'own' (branch, stage 0, block 0, stages.0.blocks.0.branch) makes (1, 16, 8, 8) of (1, 8, 8, 8), but "
        "must make (1, 8, 8, 8)",
    ),
    "wrong resolution at odd sizes": (
        "downsample",
        module("return self.down(x)", "self.down = nn.Conv2d(site.incoming, site.outgoing, 4, 2, 2)"),
        "end", "shapes",
        "the layer 'own' (downsample, stage 1, stages.1.downsample) makes (1, 16, 5, 5) of (1, 8, 8, 8), but must make "
        "(1, 16, 4, 4)",
    ),
    "rounded down where a block rounds up": (
        "shortcut", module("return self.mix(nn.functional.avg_pool2d(x, self.site.stride))",
                           "self.mix = nn.Conv2d(site.incoming, site.outgoing, 1)"), "start", "shapes",
        "the layer 'own' (shortcut, stage 1, block 0, stages.1.blocks.0.shortcut) makes (1, 64, 8, 4) of "
        "(1, 32, 16, 9), but must make (1, 64, 8, 5)",
    ),
    "no tensor": ("hidden", module("return x, x"), "end", "shapes", "returns a tuple, but must return a tensor"),
    "exception": (
        "hidden", module("return x + self.missing"), "start", "shapes",
        "the layer 'own' (hidden, stage 0, block 0, stages.0.blocks.0.hidden) fails on images of 32x32 pixels: "
        "AttributeError: 'Own' object has no attribute 'missing' (mine.py, line 14)",
    ),
    "exception in training": (
        "hidden", module("assert not self.training, 'oh\\nno'; return self.norm(x)"), "end", "precision",
        "fails on images of 64x64 pixels: AssertionError: oh no (mine.py, line 14)",
    ),
    "not finite": ("branch", module("return (x - x.amax()).log()"), "end", "shapes", "returns numbers that are not "
                   "finite"),
    "type": (
        "branch", module("return nn.functional.conv2d(x, self.factor, groups=x.shape[1])",
                         "self.factor = torch.ones(site.incoming, 1, 1, 1)"), "end", "precision",
        "fails on images of 64x64 pixels: RuntimeError: ",
    ),
    "nothing changes": (
        "hidden", module("return x").replace("self.norm =", "norm ="), "end", "changes",
        "it changes nothing: with the same weights it computes the same",
    ),
    "detached": (
        "branch", module("return self.norm(x.detach())"), "end", "gradients",
        "the layer 'own' (branch, stage 0, block 0, stages.0.blocks.0.branch) lets no gradient through",
    ),
    "unused parameter": (
        "branch", module("return self.norm(x)", "self.idle = nn.Parameter(torch.ones(3))"), "end", "gradients",
        "stages.0.blocks.0.branch.own.idle is not used: it receives no gradient",
    ),
    "idle parameter": (
        "branch", module("return self.norm(x) + 0 * self.idle", "self.idle = nn.Parameter(torch.ones(1))"),
        "end", "gradients", "stages.0.blocks.0.branch.own.idle has no influence: its gradient is zero",
    ),
    "gradient not finite": (
        "branch", module("return self.norm(x) + (self.root - self.root.detach()).abs().sqrt()",
                         "self.root = nn.Parameter(torch.ones(1))"),
        "end", "gradients", "the gradient of stages.0.blocks.0.branch.own.root is not finite",
    ),
    "in place": (
        "spatial", module("return self.norm(x.mul_(2))"), "end", "shapes",
        "changes its input in place, which the other branch still needs",
    ),
    "depends on the batch": (
        "branch", module("return self.norm(x) - x.mean(dim=0, keepdim=True)"), "end", "batches",
        "the layer 'own' (branch, stage 0, block 0, stages.0.blocks.0.branch) makes an image's result depend on the "
        "others of its batch, also in evaluation",
    ),
    "random": (
        "branch", module("return self.norm(x) * torch.rand_like(x)"), "end", "deterministic",
        "gives another output every time, also in evaluation",
    ),
    "counts in evaluation": (
        "branch", module("self.calls += 1; return self.norm(x)", "self.register_buffer('calls', torch.zeros(1))"),
        "end", "deterministic", "evaluating changes stages.0.blocks.0.branch.own.calls",
    ),
    "shared": (
        "branch", "import torch\none = None\n" + module(
            "return self.norm(x) * self.one",
            "global one; one = nn.Parameter(torch.ones(1)) if one is None else one; self.one = one"),
        "end", "copies", "stages.0.blocks.0.branch.own.one and stages.1.blocks.0.branch.own.one share their memory",
    ),
    "not in the weights file": (
        "branch", module("return self.norm(x) * self.factor", "self.factor = float(torch.rand(1))"), "end", "copies",
        "its weights file does not hold all of it, by ",
    ),
    "no copies": (
        "branch", module("return self.norm(x)", "self.open = open(__file__)"), "end", "deterministic",
        "it cannot be copied: TypeError: cannot pickle",
    ),
    "order in memory": (
        "branch", module("return self.norm(x) * (2 - float(x.is_contiguous()))"), "start", "memory_format",
        "with channels last in memory its output differs",
    ),
    "not without memory": (
        "branch", module("return self.norm(x) * self.factor", "self.factor = torch.ones(1).item()"), "end", "counts",
        "cannot be built: RuntimeError: Tensor.item() cannot be called on meta tensors (mine.py, line 11)",
    ),
    "learns nothing": (
        "norm", "from torch import nn\nfrom roadmap.network.layers import layer\n"
        "class Own(nn.BatchNorm2d):\n    def forward(self, x):\n        return 0 * super().forward(x)\n",
        "end", "learns", "it does not learn: 10 steps on one batch take its loss from",
    ),
    "cannot be built": (
        "stem", module("return x").replace("self.site = site", "self.site = cite"), "end", "builds",
        "the layer 'own' (stem, stem) cannot be built: NameError: name 'cite' is not defined (mine.py, line 9)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", BROKEN)
def test_what_is_wrong_is_told(wrong, tmp_path):
    place, text, where, check, words = BROKEN[wrong]
    (tmp_path / "mine.py").write_text(text + built(place, "Own(site.outgoing)" if place == "norm" else "Own(site)"))
    load_plugins([tmp_path / "mine.py"])
    findings = check_design(with_layer(TINY[where], "own"), TINY[where])
    failed = {finding.check: finding.sentence for finding in findings if not finding.ok}
    assert words in failed[check], failed
    assert all("\n" not in sentence for sentence in failed.values())
    assert next(iter(failed)) == check or check == "learns"
    if check in ("builds", "shapes"):
        assert findings[-1].check == check
    if check in ("shapes", "builds") and wrong != "rounded down where a block rounds up":
        with pytest.raises(RoadmapError) as caught:
            check_layers(with_layer(TINY[where], "own"), 32)
        assert words.replace("(1, ", "(2, ") in str(caught.value)


def test_a_good_layer_passes(tmp_path):
    (tmp_path / "mine.py").write_text(module("return self.norm(x)") + built("branch"))
    load_plugins([tmp_path / "mine.py"])
    before = torch.get_rng_state()
    for base in TINY.values():
        assert all(finding.ok for finding in check_design(with_layer(base, "own"), base))
        check_layers(with_layer(base, "own"), 47)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_layer_without_a_place():
    start, end = TINY["start"], TINY["end"]
    layers.layer("own", "shortcut", "x")(
        lambda site: torch.nn.Conv2d(site.incoming, site.outgoing, 1, site.stride, bias=True)
    )
    cases = [("start", start, with_layer(start, "own")), ("end", end, with_layer(end, "own"))]
    found = check_step(cases)
    assert [(finding.check, finding.ok) for finding in found["end"]] == [("place", True)]
    assert "has no place 'shortcut' in this network" in found["end"][0].sentence
    assert all(finding.ok for finding in found["start"]) and len(found["start"]) == len(NAMES)
    assert [(finding.check, finding.ok) for finding in check_step(cases[1:])["end"]] == [("place", False)]


def test_a_flag_that_changes_nothing_is_told():
    findings = {finding.check: finding for finding in check_design(TINY["end"], TINY["end"])}
    assert not findings["changes"].ok and findings["learns"].ok


def test_the_page_for_authors_is_right(tmp_path, monkeypatch):
    """The example of docs/steps.md is a plug-in, and passes."""
    text = (Path(roadmap.__file__).parents[1] / "docs" / "steps.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "eca.py").write_text(code)
    load_plugins([tmp_path / "eca.py"])
    for base in (START, END):
        assert [finding for finding in check_design(with_layer(base, "eca"), base) if not finding.ok] == []
    with pytest.raises(RoadmapError, match="kernel_size is 4, but must be odd"):
        check_layers(with_layer(END, "eca", kernel_size=4), 32)
    monkeypatch.chdir(tmp_path)
    asked = next(line.split() for line in text.splitlines() if line.startswith("    roadmap check-step eca"))
    shown = call(*asked[1:])
    assert shown.code == 0 and shown.out.startswith("eca: ok (+ eca)"), shown.out
    assert [line.split(", ")[1].split(":")[0] for line in shown.out.splitlines()[1:]] == 2 * list(NAMES)
    for place, sentence in layers.PLACES.items():
        assert f"| `{place}` | {sentence} |" in text
