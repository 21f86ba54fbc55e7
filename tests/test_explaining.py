"""What `roadmap explain` and `roadmap diff` say, against the networks themselves and a gradient's footprint."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from commands import call
from torch import nn

import roadmap
from roadmap import RoadmapError
from roadmap.cost.counting import count
from roadmap.explaining.outline import build_on_meta
from roadmap.explaining.reach import receptive_fields
from roadmap.ladders.rungs import ladder_steps
from roadmap.ladders.steps import Step, compose
from roadmap.network.model import RoadmapNet
from roadmap.planning.networks import plan_networks
from roadmap.planning.reading import load_spec
from roadmap.reference import questions

SMALL = "--width 8 --depth 0.2 --stem-stride 2 --image-size 32"
LADDER = roadmap.ladder().scaled(8, 0.2, stem_stride=2)
WIDER = roadmap.ladder().scaled(8, 1 / 3, stem_stride=2)
PLUGIN = """
from torch import nn
from roadmap.network.layers import layer


class Twice(nn.Module):
    def __init__(self, channels, stride):
        super().__init__()
        self.wide = nn.Conv2d(channels, channels, (1, 9), stride, (0, 4), groups=channels)
        self.tall = nn.Conv2d(channels, channels, (5, 1), stride, (2, 0), groups=channels)

    def forward(self, x):
        return self.wide(x) + self.tall(x)


@layer("twice", place="spatial", why="Two strips see further than a square of as many weights.", section="nowhere, §1")
def build(site):
    return Twice(site.outgoing, site.stride)
"""


def said(*words: str) -> str:
    shown = call(*" ".join(words).split())
    assert shown.code == 0, shown.err
    assert max(len(line) for line in shown.out.splitlines()) <= 80
    assert "\x1b" not in shown.out
    return shown.out


def told(*words: str) -> dict:
    shown = call(*" ".join(words).split(), "--json")
    assert shown.code == 0, shown.err
    return json.loads(shown.out)


def row(shown: str, slot: str) -> tuple[str, str]:
    """Both sides of the first line of a diagram that begins with this slot."""
    line = next(line for line in shown.splitlines() if line.startswith((f"│ {slot} ", f"├ {slot} ")))
    return line[:38].strip(), line[41:].strip()


@pytest.mark.parametrize("regime", ["resnet50", "resnet200"])
@pytest.mark.parametrize("step", [*roadmap.ladder().names[1:], "start"])
def test_every_rung_explains_itself(regime, step):
    step = regime if step == "start" else step
    rungs = roadmap.ladder(regime).scaled(8, 0.2, stem_stride=2)
    rung = rungs[step]
    explained = roadmap.explain(step, rungs, image_size=32)
    shown = str(explained)
    assert max(len(line) for line in shown.splitlines()) <= 80
    words = " ".join(shown.split())
    assert rung.why in words and rung.section in words and f"{rung.printed.top1:.2f}" in words
    assert (explained.after.gmacs, explained.after.params) == (
        (cost := count(rung.design, 32)).gmacs, cost.params)  # fmt: skip
    assert set(explained.flags) == set(rung.changes)
    assert len(explained.questions) == 2
    for question in explained.questions:
        assert question.question.strip().endswith("?") and len(question.answer) > 80
        assert re.search(r"§|Table|Appendix", question.section)
        assert " ".join(question.answer.split()) in words
    json.dumps(explained.as_dict())


def test_questions_are_asked_of_rungs_alone():
    assert set(questions()) == {name for regime in ("resnet50", "resnet200") for name in roadmap.ladder(regime).names}


def test_layers_are_those_of_the_network():
    """Every convolution, norm and activation of a real network is told, with its own settings, and nothing else is."""
    for step in ("resnet50", "large_kernel", "separate_downsample"):
        network = RoadmapNet(LADDER[step].design)
        kinds = (nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm, nn.ReLU, nn.GELU, nn.Linear, nn.MaxPool2d)
        real = {name: module for name, module in network.named_modules() if isinstance(module, kinds)}
        pieces = {piece.name: piece for piece in roadmap.explain(step, LADDER, 32).after.layers}
        assert set(pieces) - set(real) == {"head.global_pool"} and set(real) <= set(pieces)
        for name, module in real.items():
            facts = pieces[name].facts
            if isinstance(module, nn.Conv2d):
                assert facts["channels"] == (module.in_channels, module.out_channels)
                assert facts["groups"] == module.groups and facts["kernel"] == module.kernel_size
                assert (facts["stride"],) * 2 == module.stride and facts["bias"] == (module.bias is not None)


def test_depthwise_conv_changes_groups():
    shown = said("explain depthwise_conv --image-size 64")
    assert row(shown, "conv2") == ("│ conv2 3x3 256→256", "│ conv2 3x3 256→256, groups 256")
    assert "conv2 3x3 256→256                    ≠ " in shown and "conv1 1x1 1024→256                     │" in shown
    assert "Layers that differ: 18 of" in shown
    assert "stages.0-3.blocks.*.conv2 (18): groups 1 → 64 ... 512" in shown
    assert "79.51 ±0.18 % → depthwise_conv 78.28 ±0.08 %" in shown and "−1.23 ±0.20 points" in shown


def test_inverted_bottleneck_changes_widths():
    shown = said("explain inverted_bottleneck --image-size 32")
    block = shown[shown.index("\nstages.2.blocks.1\n") :]
    assert row(block, "conv1") == ("│ conv1 1x1 1536→384", "│ conv1 1x1 384→1536")
    assert row(block, "conv2")[1] == "│ conv2 3x3 1536→1536, groups 1536"
    assert row(block, "conv3") == ("│ conv3 1x1 384→1536", "│ conv3 1x1 1536→384")
    assert row(shown, "shortcut.0") == ("├ shortcut.0 1x1 96→384", "")


def test_separate_downsample_changes_what_is_between_the_stages():
    content = told("explain separate_downsample", SMALL)
    names = {layer["name"]: layer for layer in content["layers"]}
    for stage in (1, 2, 3):
        new = names[f"stages.{stage}.downsample.1"]
        assert new["before"] is None and new["after"]["facts"]["kernel"] == [2, 2]
        assert names[f"stages.{stage}.blocks.0.shortcut.0"]["after"] is None
        assert names[f"stages.{stage}.blocks.0.conv1"]["changed"] == ["channels", "groups", "stride"]
    assert {"stem.norm_out", "head.norm"} <= set(names)
    shown = said("explain separate_downsample", SMALL)
    assert "stages.1-3.downsample.1 (3): new, 2x2 12→24, stride 2, bias ... 2x2" in shown
    assert "layer_norm has none" in shown


def test_names_of_layers_that_differ_in_full():
    shown = said("explain gelu --verbose", SMALL)
    assert "  stages.2.blocks.1.act3: ReLU → GELU" in shown


def test_the_training_is_told_where_it_changes():
    shown = said("explain modern_recipe", SMALL)
    assert "recipe: optimizer: sgd → adamw" in shown and "recipe: epochs: 90 → 300" in shown
    assert "not both deviations are printed" in shown and "which stays" in shown


# --- receptive fields


def footprints(network: RoadmapNet, size: int) -> list[int]:
    """Side of what the middle of each stage's output depends on, by the gradient of a random image.

    Weights are positive, so that nothing cancels; averages stand for maxima, which pass on one input only.
    """
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.weight.data /= module.weight[0].numel()
    if hasattr(network.stem, "pool"):
        network.stem.pool = nn.AvgPool2d(3, 2, 1)
    network.double().eval()
    image = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    x, sides = network.stem(image), []
    for stage in [nn.Identity(), *network.stages]:
        x = stage(x)
        middle = x.shape[-1] // 2
        output = x[0, :, middle, middle] @ torch.rand(
            x.shape[1], dtype=x.dtype
        )  # a sum alone says nothing of LayerNorm
        (gradient,) = torch.autograd.grad(output, image, retain_graph=True)
        touched = [(gradient != 0).any(dim=1)[0].any(dim=axis).nonzero() for axis in (0, 1)]
        sides.append(max(int(one.max() - one.min()) + 1 for one in touched))
    return sides


@pytest.mark.parametrize("step", ["resnet50", "patchify_stem", "move_up_depthwise", "kernel_5", "separate_downsample"])
def test_receptive_fields_are_the_footprints_of_gradients(step):
    size = {"kernel_5": 360, "separate_downsample": 832}.get(step, 256)
    design = roadmap.ladder().scaled(4, 0.2, stem_stride=4)[step].design
    design = design.replace(blocks=(2, 1, 2, 1), layer_scale=None)
    assert receptive_fields(build_on_meta(design)) == footprints(RoadmapNet(design), size)


def test_receptive_fields_of_resnet50():
    """By hand: the stem 7 + 2 * 2 = 11; then 2 * jump more for every 3x3, whose stride counts behind it."""
    stages = roadmap.explain("resnet50", image_size=64).after.stages
    assert [stage.receptive_field for stage in stages] == [11, 35, 91, 267, 427]
    assert [(stage.height, stage.width) for stage in stages] == [(16, 16), (16, 16), (8, 8), (4, 4), (2, 2)]


def test_receptive_fields_through_plug_ins():
    assert [stage.receptive_field for stage in roadmap.explain("grn", LADDER, 32).after.stages] == [2, *[None] * 4]
    design = roadmap.Design(blocks=(2, 1), widths=(4, 8), layers=["replknet_kernels"], num_classes=3)
    assert receptive_fields(build_on_meta(design)) == footprints(RoadmapNet(design), 481)
    stem = design.replace(layers=["resnet_d_stem"])
    built = RoadmapNet(stem)
    built.stem.resnet_d_stem.pool = nn.AvgPool2d(3, 2, 1)
    assert receptive_fields(build_on_meta(stem)) == footprints(built, 128)


# --- plug-ins, families, studies


@pytest.mark.parametrize("step", ["grn", "se", "replknet_kernels", "resnet_d_stem"])
def test_plug_ins_stand_at_the_end_of_the_ladder(step):
    explained = roadmap.explain(step, LADDER, 32)
    assert explained.before.name == "separate_downsample" and explained.questions == () and explained.printed is None
    plugged = [piece for piece in explained.after.layers if piece.facts.get("layer") == step]
    assert plugged and all(piece.output for piece in plugged)
    shown = str(explained)
    assert f"layers: none → {step}" in shown and plugged[0].kind in shown


def test_a_plug_in_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    shown = said(f"explain twice --plugin {path}", SMALL)
    assert "│ conv1 Twice 48→48, sees 9x9" in shown and "Two strips see further" in shown and "nowhere, §1" in shown
    assert "conv1.wide 1x9 48→48, groups 48" in shown
    # the stem sees 2 px; a stage's only block 9 positions, 2 px apart
    assert told(f"explain twice --plugin {path}", SMALL)["after"]["stages"][1]["receptive_field"] == 2 + 8 * 2
    onto = said(f"explain twice --onto gelu --plugin {path}", SMALL)
    assert "gelu+twice" in onto


def test_diff_of_resnet50_and_convnext_tiny():
    shown = said("diff resnet50 convnext_tiny")
    for words in (
        "stem: resnet → patchify",
        "kernel_size: 3 → 7",
        "layer_scale: none → 1e-06",
        "resnet50 → convnext_tiny",
    ):
        assert words in shown
    assert row(shown, "conv") == ("│ conv 7x7 3→64, stride 2", "│ conv 4x4 3→96, stride 4, bias")
    assert re.search(r"GMACs +4\.089 +4\.456", shown) and re.search(r"parameters, M +25\.56 +28\.59", shown)
    assert re.search(r"stages\.3 +3 +2048 +7x7 +427 +3 +768 +7x7 +1688", shown)


def test_families_are_scaled_as_the_ladder_is():
    network = roadmap.diff("separate_downsample", "convnext_tiny", WIDER, 32).after.design
    rung = WIDER["separate_downsample"].design
    assert (network["widths"], network["blocks"], network["stem_stride"]) == (rung.widths, rung.blocks, 2)
    explained = roadmap.diff("separate_downsample", "convnext_isotropic_small", WIDER, 32)
    assert explained.after.design["stem_stride"] == 8 and len(explained.after.stages) == 2
    assert str(explained)


def test_diff_of_networks_with_further_steps():
    explained = roadmap.diff("gelu+se", "convnext_tiny+grn", LADDER, 32)
    assert explained.before.design["layers"][0][0] == "se" and explained.after.design["layers"][0][0] == "grn"


def test_what_studies_measured():
    folder = Path(__file__).parents[1] / "results" / "cifar10"
    study = roadmap.load_study(folder)
    effect = study.effects.set_index("effect").loc["gelu"]
    shown = " ".join(said(f"explain gelu --study {folder} --study {folder}", SMALL).split())
    low, high = (f"{value:+.2f}".replace("-", "−") for value in (effect["low"], effect["high"]))
    points = f"{effect['estimate']:+.2f} points, interval {low} to {high}, 3 seeds"
    told_twice = f"gelu against large_kernel: {effect['verdict']}: {points}"
    assert shown.count(told_twice) == 2 and "cifar10, 32 px, width 16, 6 epochs" in shown
    means = study.steps.set_index("step")["top1_mean"]
    both = said(f"diff gelu layer_norm --study {folder}", SMALL)
    assert f"gelu: {means['gelu']:.2f} ±" in both and f"layer_norm: {means['layer_norm']:.2f} ±" in both
    assert "Nothing about grn." in said(f"explain grn --study {folder}", SMALL)
    assert "It is of the regime resnet50." in said(f"explain gelu --regime resnet200 --study {folder}", SMALL)


def test_interactions_and_failures_of_a_study():
    rows = [{"effect": effect, "estimate": estimate, "low": float("nan"), "high": float("nan"), "seeds": 1, "failed": 2,
             "against": None, "network": None, "verdict": None}
            for effect, estimate in (("gelu", 0.5), ("gelu × large_kernel", float("nan")), ("grn", 1.0))]  # fmt: skip
    runs = pd.DataFrame([{"regime": "resnet50", "data": "toy", "image_size": 32, "width": 8, "epochs": 2}])
    runs = runs.assign(step="all", steps="gelu", reference=False, images_per_second=float("nan"), device_name="here")
    study = SimpleNamespace(path=Path("toy"), design="factorial", described={},
                            runs=runs, effects=pd.DataFrame(rows), steps=pd.DataFrame({"step": []}))  # fmt: skip
    explained = roadmap.explain("gelu", LADDER, 32, studies=[study])
    assert [effect.effect for effect in explained.studies[0].effects] == ["gelu", "gelu × large_kernel"]
    shown = str(explained)
    assert (
        "gelu: +0.50 points, no interval, 1 seed" in shown and "gelu × large_kernel: no result, 2 runs failed" in shown
    )
    json.dumps(explained.as_dict(), allow_nan=False)


def toy_study(**changes):
    """A study of two networks, with and without large_kernel, whose texts are what a stranger wrote."""
    row = {"regime": "resnet50", "data": "toy", "image_size": 32, "width": 8, "epochs": 2, "reference": False}
    runs = [
        row | {"step": name, "steps": steps, "images_per_second": speed, "device_name": "a GPU"}
        for name, steps, speeds in (("all but x", "gelu", (90, 110)), ("all", "gelu+large_kernel", (40, 60)))
        for speed in speeds
    ]
    effect = {
        "effect": "large_kernel",
        "estimate": 0.5,
        "low": 0.1,
        "high": 0.9,
        "seeds": 2,
        "failed": 0,
        "against": "all but x",
        "network": "all",
        "verdict": "gain",
    }
    facts = {
        "path": Path("toy"),
        "design": "leave-one-out",
        "described": {},
        "runs": pd.DataFrame(runs),
        "effects": pd.DataFrame([effect]),
        "steps": pd.DataFrame({"step": []}),
    }
    return SimpleNamespace(**facts | changes)


def test_throughput_before_and_after_is_told_of_a_study():
    told = roadmap.explain("large_kernel", LADDER, 32, studies=[toy_study()])
    assert told.studies[0].speed == (100.0, 50.0, "a GPU")
    assert "training: 100 → 50 images/s, x0.50, on a GPU" in str(told)
    runs = toy_study().runs.assign(device_name=["a GPU", "a GPU", "a GPU", "another"])
    assert roadmap.explain("large_kernel", LADDER, 32, studies=[toy_study(runs=runs)]).studies[0].speed is None
    folder = Path(__file__).parents[1] / "results" / "cifar10"
    runs = roadmap.load_study(folder).runs.groupby("step")["images_per_second"].mean()
    shown = said(f"explain large_kernel --study {folder}", SMALL)
    assert f"{runs['move_up_depthwise']:.4g} → {runs['large_kernel']:.4g} images/s" in shown


def test_nothing_foreign_reaches_the_terminal_or_a_page():
    runs = toy_study().runs.assign(data="\x1b[31mred\x1b[0m<script>alert(1)</script>", device_name="\x07<b>")
    told = roadmap.explain("large_kernel", LADDER, 32, studies=[toy_study(runs=runs)])
    assert "\x1b" not in str(told) and "\x07" not in str(told) and "\\x1b[31mred" in str(told)
    assert "<script>" not in told._repr_html_() and "&lt;script&gt;" in told._repr_html_()
    assert "k² C products" in str(told)  # what is no control character stays


def test_steps_of_a_study_are_explained_from_its_description(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\ndesign: one-at-a-time\nbase: resnet50\nsteps:\n  - gelu\n  - {name: wide, why: More channels., "
        "width_factor: 1.5, mixup: 0.3}\n  - {name: both, steps: [large_kernel, wide]}\n"
        "  - {name: squeezed, layers: {se: {ratio: 0.25}}}\n"
    )
    described = json.loads(json.dumps(plan_networks(load_spec(path)).facts))
    study = toy_study(described=described, design="one-at-a-time")
    wide = roadmap.explain("wide", LADDER, 32, studies=[study])
    assert wide.why == "More channels." and wide.training["mixup"] == (0.0, 0.3)
    assert wide.before.name == "resnet50" and wide.after.design["widths"] == (12, 24, 48, 96)
    both = roadmap.explain("both", LADDER, 32, studies=[study])
    assert set(both.flags) == {"widths", "kernel_size"}
    onto = roadmap.explain("wide", LADDER, 32, onto="resnet50+squeezed", studies=[study])
    assert (onto.before.name, onto.after.name) == ("resnet50+squeezed", "resnet50+squeezed+wide")
    assert onto.before.design["layers"] == onto.after.design["layers"] and set(onto.flags) == {"widths"}
    published = roadmap.explain("wide", LADDER, 32, onto="convnext_tiny", studies=[study])
    assert published.training == {"mixup": (0.8, 0.3)} and set(published.flags) == {"widths"}
    two = roadmap.diff("gelu+wide", "squeezed", LADDER, 32, studies=[study])
    assert {"widths", "layers", "norm"} <= set(two.flags)
    squeezed = roadmap.explain("squeezed", LADDER, 32, studies=[study])
    assert squeezed.after.design["layers"] == (("se", (("ratio", 0.25),)),)
    for step in ladder_steps():
        again = Step.from_mapping({"name": step.name, **json.loads(json.dumps(step.settings))})
        assert compose(LADDER.start.design, [again]) == compose(LADDER.start.design, [step])
        assert again.recipe == step.recipe


def test_levels_of_a_sweep_stand_in_each_others_place():
    for sweep, flag in (({"width_factor": [1.25, 1.5]}, "widths"), ({"layers": [["se"], ["grn"]]}, "layers")):
        ablation = plan_networks(load_spec(sweep=sweep, base="resnet50"))
        first, level = (network.name for network in ablation.networks)
        runs = toy_study().runs.assign(step=[first, first, level, level], steps=[first, first, level, level])
        effects = toy_study().effects.assign(effect=level, against=first, network=level)
        study = toy_study(described=ablation.facts, design="sweep", runs=runs, effects=effects)
        explained = roadmap.explain(level, LADDER, 32, studies=[study])
        assert (explained.before.name, explained.after.name) == (f"resnet50+{first}", f"resnet50+{level}")
        designs = [LADDER.design_of(network.steps) for network in ablation.networks]
        assert explained.flags == {flag: tuple(getattr(design, flag) for design in designs)}
        with pytest.raises(RoadmapError, match=f"in the study toy, '{first}' is compared with no other network"):
            roadmap.explain(first, LADDER, 32, studies=[study])


def test_a_step_of_a_ladder_whose_runs_all_failed():
    ablation = plan_networks(load_spec(steps=["modern_recipe", "grn"]))
    runs = toy_study().runs.assign(step=["resnet50", "modern_recipe", "grn", "grn"])
    runs["steps"] = ["", "modern_recipe", *["modern_recipe+grn"] * 2]
    effects = toy_study().effects.assign(effect="grn", against="modern_recipe", network="grn")
    study = toy_study(described=ablation.facts, design="ladder", runs=runs, effects=effects)
    explained = roadmap.explain("grn", LADDER, 32, studies=[study])
    assert (explained.before.name, explained.after.name) == ("modern_recipe", "modern_recipe+grn")


def test_a_study_that_does_not_say_what_its_steps_set(tmp_path):
    kept = Path(__file__).parents[1] / "results" / "cifar10-order"
    folder = shutil.copytree(kept, tmp_path / "older", ignore=shutil.ignore_patterns("*.p*", "*.svg"))
    assert (
        "kernel_size: 3 → 7"
        in call(*f"explain large_kernels --study {folder} --onto patchify_stem {SMALL}".split()).out
    )
    content = json.loads((folder / "study.json").read_text())
    for step in content["ablation"]["steps"]:
        del step["settings"]
    (folder / "study.json").write_text(json.dumps(content))
    shown = call(*f"explain macro_design --study {folder} {SMALL}".split())
    assert shown.code == 2 and len(shown.err.splitlines()) == 1
    assert "has a step 'macro_design', but does not say what it sets" in shown.err
    shown = call(*f"explain macro_dsign --study {folder} {SMALL}".split())
    assert "unknown step 'macro_dsign'" in shown.err


@pytest.mark.slow
def test_speed_is_measured_where_asked():
    content = told("explain gelu --measure --seconds 0.05 --batch-size 2 --threads 1", SMALL)
    assert (
        content["before"]["speed"]["training_images_per_second"] > 0 and "32 px, batches of 2" in content["measured_on"]
    )
    assert told("explain gelu", SMALL)["after"]["speed"] is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("explain gleu", "unknown step 'gleu' (did you mean 'gelu'?)"),
        ("diff resnet50 convnxt_tiny", "unknown network 'convnxt_tiny' (did you mean 'convnext_tiny'?)"),
        ("explain convnext_tiny", "'convnext_tiny' is a network, not a step: use roadmap diff resnet50 convnext_tiny"),
        ("explain gelu --onto resnet50", "is a rung of the ladder and has its place"),
        ("explain grn --onto gleu", "unknown network 'gleu' (did you mean 'gelu'?)"),
        ("explain gelu+grn", "unknown step 'gelu+grn'"),
        ("explain gelu --image-size 3", "an image of 3 pixels is reduced to nothing"),
        ("explain gelu --study nowhere", "nowhere"),
        ("explain gelu --batch-size 1", "batch size is 1, but must be between 2 and"),
    ],
)
def test_mistakes_are_one_sentence(words, sentence):
    shown = call(*words.split())
    assert shown.code == 2 and shown.out == ""
    assert sentence in shown.err and len(shown.err.splitlines()) == 1


def test_mistakes_from_python():
    with pytest.raises(RoadmapError, match="image size is 0"):
        roadmap.explain("gelu", image_size=0)


def test_a_plug_in_that_cannot_be_followed(tmp_path):
    path = tmp_path / "values.py"
    path.write_text(
        PLUGIN.replace("twice", "looking").replace("return self.wide(x)", "return x.max().item() + self.wide(x)")
    )
    shown = call(*f"explain looking --plugin {path} {SMALL}".split())
    assert shown.code == 2 and len(shown.err.splitlines()) == 1
    assert "cannot be followed on torch's meta device" in shown.err
