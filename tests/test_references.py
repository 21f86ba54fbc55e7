"""timm's models in the same race: built, counted, trained, kept and tested as the rungs are."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
import timm
import torch
from folders import make_image_folder
from timm.layers import set_fused_attn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

import roadmap
from roadmap import Design, RoadmapError
from roadmap.cost.counting import count, count_params
from roadmap.cost.measuring import measure
from roadmap.data.batches import Batcher, seed_everything
from roadmap.data.sources import open_data
from roadmap.network.building import build_network, design_from_dict, normalises_over_batch
from roadmap.network.description import Description, read_description
from roadmap.network.timm_model import TimmModel, facts_of, reference_design
from roadmap.network.weights import open_weights, save_weights
from roadmap.planning.reading import load_spec
from roadmap.recipes.recipe import Recipe
from roadmap.running.display import PlainDisplay
from roadmap.running.preparing import prepare
from roadmap.running.reproduction import reproduce
from roadmap.running.runner import run_study
from roadmap.store.store import Store
from roadmap.tasks.classification.runtime import logits_of
from roadmap.training import fit
from roadmap.training.fit import Watch, fit_run
from roadmap.training.module import StoppedError, TaskModule
from roadmap.training.spec import Execution, RunSpec
from roadmap.training.start import StartingWeights, scale_classifier

ONE_THREAD = Execution(device="cpu", threads=1)
SWIN, DEIT, VIT = "swin_tiny_patch4_window7_224", "deit_tiny_patch16_224", "test_vit"
#: The paper's Tables 1 and 2: GFLOPs and parameters in 1e6.
PRINTED = {
    "swin_tiny_patch4_window7_224": (4.5, 28), "swin_small_patch4_window7_224": (8.7, 50),
    "swin_base_patch4_window7_224": (15.4, 88), "deit_small_patch16_224": (4.6, 22),
    "deit_base_patch16_224": (17.6, 87),
}  # fmt: skip
#: Images of 32 pixels for all families; other numbers of patches and windows for those that have some.
CONVOLUTIONAL = ["resnet18", "convnext_atto", "efficientnet_b0", "mobilenetv3_small_050", "regnety_002", "vgg11"]
PATCHED = ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "deit_tiny_distilled_patch16_224", "test_vit",
           "mixer_s32_224", "levit_128s", "xcit_nano_12_p16_224", "volo_d1_224"]  # fmt: skip
SIZED = [(name, 32, 2) for name in PATCHED + CONVOLUTIONAL]
SIZED += [(name, 96, 2) for name in PATCHED[::2]] + [(name, 224, 4) for name in PATCHED[1::2]]


def torch_count(design, size):
    """MACs by torch's own counter, with attention written out."""
    set_fused_attn(False)
    try:
        with torch.device("meta"):
            network = build_network(design).eval()
            with FlopCounterMode(display=False) as counter:
                assert network(torch.zeros(1, 3, size, size)).shape == (1, design.num_classes)
    finally:
        set_fused_attn(True)
    return counter.get_total_flops() / 2e9


# --- built


@pytest.mark.parametrize(("name", "size", "stride"), SIZED)
def test_a_model_is_made_for_the_images_and_counted(name, size, stride):
    design = reference_design(name, 7, size, stride, 0.1)
    assert design == TimmModel(name, 7, size, stride, stochastic_depth=0.1)
    cost = count(design, size)
    assert cost.gmacs == pytest.approx(torch_count(design, size), rel=1e-6)
    assert cost.params == count_params(design)
    if size > 32:  # larger images have passed through it without memory: in training as a reference, then counted
        return
    network = build_network(design)
    assert cost.params == sum(parameter.numel() for parameter in network.parameters())
    for mode in (True, False):
        assert network.train(mode)(torch.randn(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize("name", PRINTED)
def test_counts_are_the_papers(name):
    cost = count(TimmModel(name, 1000, 224), 224)
    gflops, params = PRINTED[name]
    assert cost.gmacs == pytest.approx(gflops, abs=0.1) and cost.params / 1e6 == pytest.approx(params, abs=1)
    assert cost.gmacs == pytest.approx(torch_count(TimmModel(name, 1000, 224), 224), rel=1e-6)


@pytest.mark.parametrize(
    "name", [SWIN, "deit_small_patch16_224", "resnet50", "convnext_tiny", "efficientnet_b0", "vgg11"]
)
def test_at_the_native_stem_stride_it_is_timms_own(name):
    seed_everything(3)
    ours = TimmModel(name, 1000, 224, stochastic_depth=0.0).build()
    seed_everything(3)
    theirs = timm.create_model(name, **({} if name == "vgg11" else {"drop_path_rate": 0.0}))
    for (one, a), (other, b) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert one == other and torch.equal(a, b)


@pytest.mark.parametrize("name", [SWIN, VIT, "resnet18"])
def test_equal_seeds_make_equal_networks(name):
    states = []
    for seed in (0, 0, 1):
        facts_of.cache_clear()
        seed_everything(seed)
        states.append(TimmModel(name, 3, 32, 2, stochastic_depth=0.1).build().state_dict())
    same = [all(torch.equal(states[0][key], other[key]) for key in states[0]) for other in states]
    assert same == [True, True, False]


def test_patches_and_drop_rates_follow_the_ladder():
    swin = TimmModel(SWIN, 3, 32, 2, stochastic_depth=0.2).build()
    assert swin.patch_embed.patch_size == (2, 2) and swin.layers[3].blocks[1].drop_path1.drop_prob == pytest.approx(0.2)
    assert TimmModel("deit_small_patch16_224", 3, 32, 1).build().patch_embed.patch_size == (4, 4)
    assert TimmModel("convnext_atto", 3, 32, 1).build().stem[0].kernel_size == (1, 1)
    assert TimmModel("resnet18", 3, 32, 1).build().conv1.stride == (2, 2)
    assert TimmModel(SWIN, 3, 32, 2, in_channels=5).build()(torch.randn(2, 5, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        (lambda: TimmModel("resnet50.a1_in1k", 3, 32), "names pretrained weights, 'a1_in1k', .*: say resnet50$"),
        (lambda: TimmModel("", 3, 32), "the timm model is ''"),
        (lambda: TimmModel("resnet50", 3, 32, 3), "stem_stride is 3"),
        (lambda: TimmModel("resnet50", 3, 0), "image_size is 0"),
        (lambda: reference_design("swin_tny_patch4_window7_224", 3, 32), rf"timm has no model .* mean '{SWIN}'"),
        (
            lambda: prepare(load_spec(data="embedded", only=("gelu",), reference=("roadmap_gelu",))),
            "'roadmap_gelu' is a rung of the ladder and no reference",
        ),
        (lambda: reference_design("crossvit_tiny_240", 3, 224), "crossvit_tiny_240 does not take images of 224 pixels"),
        (lambda: reference_design(VIT, 3, 8), "test_vit does not take images of 8 pixels at stem stride 4"),
        (
            lambda: count(TimmModel(DEIT, 3, 32), 64),
            "deit_tiny_patch16_224, built for 32 pixels, does not take images of",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(work, sentence):
    with pytest.raises(RoadmapError, match=sentence) as caught:
        work()
    assert "\n" not in str(caught.value)


def test_a_convnet_takes_other_sizes_than_it_was_made_for():
    design = TimmModel("resnet18", 3, 32)
    design.feature_sizes(64)
    assert count(design, 64).gmacs > count(design, 32).gmacs


def test_which_networks_normalise_over_the_batch():
    assert normalises_over_batch(TimmModel("efficientnet_b0", 3, 32)) and normalises_over_batch(Design())
    assert not normalises_over_batch(TimmModel(SWIN, 3, 32)) and not normalises_over_batch(Design(norm="layer"))


def test_planning_needs_neither_torch_nor_timm():
    code = (
        "import sys, dataclasses, roadmap.training.spec, roadmap.network.building as building\n"
        "from roadmap.network.timm_model import TimmModel\n"
        "design = TimmModel('resnet18', 3, 32)\ndesign.feature_sizes(32)\n"
        "assert building.design_from_dict(dataclasses.asdict(design)) == design\n"
        "assert not {'torch', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_measured_model():
    assert measure(TimmModel(VIT, 3, 32, 2), 32, 4, "cpu", seconds=0.05, threads=1).training_images_per_second > 0


# --- kept


@pytest.mark.parametrize("name", [SWIN, "volo_d1_224", "efficientnet_b0", "deit_small_distilled_patch16_224"])
def test_weights_load_again(tmp_path, name):
    design = TimmModel(name, 3, 64, 2, stochastic_depth=0.1)
    network = build_network(design)
    save_weights(network, tmp_path / "weights.safetensors", image_size=64)
    weights = open_weights(tmp_path / "weights.safetensors")
    assert weights.description() == Description(design, image_size=64)
    tensors = weights.of(design)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in network.state_dict().items())
    with pytest.raises(RoadmapError, match="does not fit this network"):
        weights.of(Design())
    with pytest.raises(RoadmapError, match="does not fit this network"):
        weights.of(TimmModel("resnet18", 3, 64))


def test_plain_values_come_back():
    design = TimmModel(SWIN, 3, 32, 2, stochastic_depth=0.1)
    assert design_from_dict(json.loads(json.dumps(dataclasses.asdict(design)))) == design
    assert read_description(Description(design, image_size=32).to_text()) == Description(design, image_size=32)
    lacking = json.dumps({"design": {"timm_model": SWIN, "num_classes": 3}})
    with pytest.raises(RoadmapError, match="its design lacks image_size"):
        read_description(lacking)
    with pytest.raises(RoadmapError, match="unknown flag of the design 'blocks'"):
        read_description(json.dumps({"design": dataclasses.asdict(design) | {"blocks": [1]}}))


# --- trained


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_image_folder(tmp_path_factory.mktemp("images"), size=(32, 32))


@pytest.fixture(scope="module")
def data(images):
    return open_data("folder", images, image_size=16)


def make_run(data, name, **settings):
    few = {"epochs": 3, "batch_size": 16, "lr": 1e-3, "lr_batch_size": 16, "optimizer": "adamw", "weight_decay": 0.05}
    stride = 4 if name == SWIN else 1
    return RunSpec(
        regime="resnet50", step=name, adopted=False, width=8, depth=1.0,
        design=reference_design(name, len(data.class_names), data.image_size, stride, 0.2),
        recipe=Recipe("test", **few | settings), data=data.name, data_fingerprint=data.identity,
        image_size=data.image_size, seed=0,
    )  # fmt: skip


EVERYTHING = {
    "mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1, "random_erasing": 0.5, "crop": "shift", "flip": True,
    "warmup_epochs": 1, "clip_gradient": 1.0, "layer_decay": 0.8, "ema": 0.9, "ema_warmup": True, "head_scale": 0.5,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", [SWIN, VIT, "test_efficientnet"])
def test_a_stopped_run_goes_on_as_if_never_stopped(data, tmp_path, monkeypatch, name):
    monkeypatch.setattr(fit, "CHECKPOINT_INTERVAL", 0.0)
    run = make_run(data, name, epochs=2, **EVERYTHING)
    whole = fit_run(run, data, tmp_path / "whole", ONE_THREAD)
    assert whole.metrics["status"] == "done" and whole.network.design == run.design

    class Stopping(Watch):
        def wants_stop(self):
            return True

    with pytest.raises(StoppedError):
        fit_run(run, data, tmp_path / "parts", ONE_THREAD, Stopping())
    assert torch.load(tmp_path / "parts" / fit.CHECKPOINT, weights_only=True)["epoch"] == 0
    resumed = fit_run(run, data, tmp_path / "parts", ONE_THREAD)
    assert len(resumed.history) == 2 and resumed.metrics["top1"] == whole.metrics["top1"]
    for (one, a), (_, b) in zip(whole.network.state_dict().items(), resumed.network.state_dict().items(), strict=True):
        assert torch.equal(a, b), one


def test_training_is_that_of_a_bare_loop(data, tmp_path):
    run = make_run(data, VIT, optimizer="sgd", lr=0.01, momentum=0.9, weight_decay=1e-3, decay_all=True,
                   schedule="step", milestones=(2,))  # fmt: skip
    run = dataclasses.replace(run, design=run.design.replace(stochastic_depth=0.0))
    result = fit_run(run, data, tmp_path, ONE_THREAD)
    seed_everything(0)
    network = timm.create_model(VIT, num_classes=3, img_size=16, patch_size=4).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=1e-3)
    for epoch in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 if epoch < 2 else 0.001
        for images, labels in Batcher(data, run.recipe, 0).training(epoch):
            optimizer.zero_grad()
            cross_entropy(logits_of(network, images), labels).backward()
            optimizer.step()
    for name, value in network.state_dict().items():
        assert torch.allclose(value, result.network.state_dict()[name], atol=1e-4), name


def test_layers_learn_at_rates_by_their_depth(data):
    run = make_run(data, VIT, layer_decay=0.5)
    network = build_network(run.design)
    module = TaskModule(network, run.recipe, Batcher(data, run.recipe, 0), False, Watch(), print, tested=())
    groups = module.configure_optimizers()["optimizer"].param_groups
    rates = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    assert rates[id(network.head.weight)] == 1
    assert rates[id(network.patch_embed.proj.weight)] == 0.5 ** (len(network.blocks) + 1)


@pytest.mark.parametrize("name", [VIT, SWIN, "deit_tiny_distilled_patch16_224", "levit_128s"])
def test_a_fresh_classifier_may_start_small(name):
    network = TimmModel(name, 3, 32, 2).build().eval()
    scale_classifier(network, 0.0)
    assert network(torch.randn(2, 3, 32, 32)).abs().max() == 0


def test_several_processes_share_batches_where_the_network_allows_it(data):
    together = Execution(device="cpu", devices=2)
    together.check_shares(make_run(data, VIT), "cpu")
    with pytest.raises(RoadmapError, match="test_resnet normalises over the whole batch"):
        together.check_shares(make_run(data, "test_resnet"), "cpu")


def test_signatures_tell_references_apart(data):
    run = make_run(data, VIT)
    changes = ({"timm_model": SWIN}, {"stem_stride": 2}, {"stochastic_depth": 0.0}, {"image_size": 32})
    others = [dataclasses.replace(run, design=run.design.replace(**change)) for change in changes]
    assert len({run.signature, *(other.signature for other in others)}) == 5
    assert RunSpec.from_dict(json.loads(json.dumps(run.to_dict()))) == run
    with pytest.raises(RoadmapError, match="of another version"):
        RunSpec.from_dict(run.to_dict() | {"design": dataclasses.asdict(run.design) | {"blocks": [1]}})


@pytest.mark.slow
def test_a_study_of_references_from_beginning_to_end(images, tmp_path):
    """Trained by the runner, tested again, made again, trained further."""
    names = ("test_efficientnet", VIT)
    words = {"epochs": 1, "batch_size": 24, "threads": 1, "jobs": "1", "seeds": (0,), "device": "cpu",
             "data": "folder", "data_dir": str(images), "image_size": 16}  # fmt: skip

    def plan(spec, data):
        return [make_run(data, name, epochs=1, batch_size=24, lr_batch_size=24, ema=0.9) for name in names]

    display, store = PlainDisplay(), Store(tmp_path / "store")
    study = prepare(load_spec(**words), store, plan=plan)
    assert study.costs[VIT].gmacs > 0
    run_study(study, tmp_path / "study", store, False, display, "test")
    for run in study.runs:
        record = store.record(run.signature)
        assert record["result"]["status"] == "done" and record["run"]["design"]["timm_model"] == run.step
        tested = roadmap.evaluate(run.signature, store=tmp_path / "store")
        assert tested.top1 == record["result"]["top1"]
    weights = tmp_path / "copy.safetensors"
    weights.write_bytes((store.path(run.signature) / "weights.safetensors").read_bytes())
    assert roadmap.evaluate(weights, data="folder", data_dir=images, threads=1, device="cpu").top1 == tested.top1
    with pytest.raises(RoadmapError, match="is timm's test_vit, not a rung: leave out --step"):
        roadmap.evaluate(weights, data="folder", data_dir=images, step="gelu")
    again = reproduce(run.signature, store, display)
    assert again.matches and again.weights == 0.0
    further = prepare(load_spec(start_from=run.signature, **words), store)
    assert further.runs[0].design == run.design.replace(stochastic_depth=further.runs[0].design.stochastic_depth)
    run_study(further, tmp_path / "further", store, False, display, "test")
    assert store.record(further.runs[0].signature)["result"]["top1"] > 0


def test_another_classifier_starts_anew(data, tmp_path):
    run = make_run(data, VIT)
    network = build_network(run.design.replace(num_classes=5))
    save_weights(network, tmp_path / "weights.safetensors")
    start = StartingWeights(open_weights(tmp_path / "weights.safetensors"), run.design)
    fresh = build_network(run.design)
    before = fresh.head.weight.clone()
    start.load_into(fresh, start.digest(classifier=False), head_scale=0.5)
    assert torch.equal(fresh.head.weight, 0.5 * before)
    assert torch.equal(fresh.blocks[0].mlp.fc1.weight, network.blocks[0].mlp.fc1.weight)
