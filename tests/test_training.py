"""One training: against a bare loop, continued after a stop, diverged, in other precisions."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest
import torch
from folders import make_image_folder
from torch.nn.functional import cross_entropy

from roadmap import RoadmapError
from roadmap.data.batches import Batcher, seed_everything
from roadmap.data.sources import open_data
from roadmap.ladders.rungs import ladder
from roadmap.network.design import Design
from roadmap.network.model import RoadmapNet
from roadmap.recipes.recipe import Recipe, load_recipe, recipe_names
from roadmap.tasks import default_task
from roadmap.training import fit
from roadmap.training.fit import Watch, fit_run, make_fit
from roadmap.training.module import StoppedError, TaskModule
from roadmap.training.spec import Execution, RunSpec

ONE_THREAD = Execution(device="cpu", threads=1)
END = Design(
    blocks=(1, 1), widths=(8, 16), stem="patchify", stem_stride=2, groups="depthwise", block="inverted",
    spatial_position="first", kernel_size=5, activation="gelu", fewer_activations=True, fewer_norms=True, norm="layer",
    separate_downsample=True, layer_scale=1e-2, num_classes=3,
)  # fmt: skip
START = Design(blocks=(1, 1), widths=(8, 16), stem_stride=2, num_classes=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return open_data("folder", make_image_folder(tmp_path_factory.mktemp("images"), size=(32, 32)), image_size=16)


def make_run(data, design=END, seed=0, precision="32", **settings):
    recipe = Recipe("test", **{"epochs": 3, "batch_size": 16, "lr": 2e-3, "lr_batch_size": 16, **settings})
    return RunSpec(
        regime="resnet50", step="gelu", adopted=True, width=8, depth=1.0, design=design, recipe=recipe, data=data.name,
        data_fingerprint=data.fingerprint, image_size=data.image_size, seed=seed, precision=precision,
    )  # fmt: skip


def same_weights(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@pytest.mark.parametrize("design", [START, END])
def test_training_is_that_of_a_bare_loop(data, tmp_path, design):
    """SGD with momentum, weight decay on everything, a milestone: written out with torch alone."""
    run = make_run(
        data, design, optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=1e-3, decay_all=True, schedule="step",
        milestones=(2,), label_smoothing=0.1, crop="shift", flip=True,
    )  # fmt: skip
    result = fit_run(run, data, tmp_path, ONE_THREAD)

    seed_everything(0)
    network = RoadmapNet(design).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    losses = []
    for epoch in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 if epoch < 2 else 0.005
        total = 0.0
        for images, labels in Batcher(data, run.recipe, 0).training(epoch):
            loss = cross_entropy(network(images), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
        losses.append(total / 4)
    for name, value in network.state_dict().items():
        assert torch.allclose(value, result.network.state_dict()[name], atol=1e-5), name
    assert [epoch["train_loss"] for epoch in result.history] == pytest.approx(losses, abs=1e-4)

    network.eval()
    with torch.no_grad():
        images, labels = next(iter(Batcher(data, run.recipe, 0).testing()))
        logits = network(images)
    assert result.metrics["top1"] == pytest.approx(100 * float((logits.argmax(1) == labels).float().mean()))
    assert result.metrics["loss"] == pytest.approx(float(cross_entropy(logits, labels)), abs=1e-4)
    assert result.metrics["top5"] == 100  # of three classes


def test_learning_rate_warms_up_and_follows_a_cosine_to_zero(data, tmp_path):
    rates = []
    run = make_run(data, epochs=5, warmup_epochs=1)

    class Record(TaskModule):
        def on_train_batch_start(self, batch, index):
            rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    module, trainer = make_fit(run, data, tmp_path, ONE_THREAD, Watch(), kind=Record)
    trainer.fit(module)
    warm = [2e-3 * step / 4 for step in range(4)]
    cosine = [2e-3 * 0.5 * (1 + math.cos(math.pi * step / 16)) for step in range(16)]
    assert rates == pytest.approx(warm + cosine)


def bare_loop(run, data):
    """Yields the network after each step of plain SGD, the gradient summed over the parts of a batch."""
    seed_everything(run.seed)
    network = RoadmapNet(run.design).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), run.recipe.peak_lr, momentum=0.9, nesterov=True)
    for epoch in range(run.recipe.epochs):
        for number, (images, labels) in enumerate(Batcher(data, run.recipe, run.seed).training(epoch), start=1):
            (cross_entropy(network(images), labels) / run.recipe.accumulate).backward()
            if number % run.recipe.accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
                yield network


CONSTANT = {"optimizer": "nesterov", "lr": 0.02, "schedule": "step", "milestones": (3,)}


@pytest.mark.parametrize("design", [START, END])
def test_accumulated_gradients_are_those_of_a_bare_loop(data, tmp_path, design):
    run = make_run(data, design, accumulate=2, **CONSTANT)
    result = fit_run(run, data, tmp_path, ONE_THREAD)
    *_, network = bare_loop(run, data)
    for name, value in network.state_dict().items():
        assert torch.allclose(value, result.network.state_dict()[name], atol=1e-5), name
    assert result.history[0]["images"] == 64 and result.metrics["epochs"] == 3
    whole = fit_run(make_run(data, design, **CONSTANT), data, tmp_path, ONE_THREAD).network
    near = all(torch.allclose(a, b, atol=1e-4) for a, b in zip(whole.parameters(), network.parameters(), strict=True))
    assert near == (design.norm == "layer"), "BatchNorm alone looks at the part instead of the batch"


def test_the_average_of_the_weights_is_tested_and_kept(data, tmp_path):
    run = make_run(data, START, ema=0.8, **CONSTANT)
    result = fit_run(run, data, tmp_path, ONE_THREAD)
    average = None
    for network in bare_loop(run, data):
        now = {name: value.clone() for name, value in network.state_dict().items()}
        average = average or now  # from the first step on
        average = {
            name: 0.8 * average[name] + 0.2 * value if value.is_floating_point() else value
            for name, value in now.items()
        }
    for name, value in average.items():
        assert torch.allclose(value, result.network.state_dict()[name], atol=1e-5), name
    images, labels = next(iter(Batcher(data, run.recipe, 0).testing()))
    for weights, top1 in ((average, "top1"), (now, "last_top1")):
        network.load_state_dict(weights)
        with torch.no_grad():
            right = network.eval()(images).argmax(1) == labels
        assert result.metrics[top1] == pytest.approx(100 * float(right.float().mean())), top1


def test_layers_learn_at_the_rates_of_the_released_code(data):
    """ConvNeXt-B: `get_num_layer_for_convnext` of the paper's repository, written out for our names."""
    with torch.device("meta"):
        network = RoadmapNet(ladder("resnet200")["separate_downsample"].design)
    recipe = load_recipe("finetune-384")
    module = TaskModule(network, recipe, Batcher(data, recipe, 0), False, Watch(), print, tested=())
    scales = {
        id(p): group["lr_scale"] for group in module.configure_optimizers()["optimizer"].param_groups
        for p in group["params"]
    }  # fmt: skip
    for name, parameter in network.named_parameters():
        part, *numbers = re.findall(r"^[a-z]+|\d+", name)
        if part == "stages":
            stage = int(numbers[0])
            third = int(numbers[1]) // 3 if ".blocks." in name else 0
            layer = {0: 1, 1: 2, 2: 3 + third, 3: 12}[stage]
        else:
            layer = {"stem": 0, "head": 13}[part]
        assert scales[id(parameter)] == pytest.approx(0.7 ** (13 - layer)), name


def test_a_fresh_classifier_may_start_small(data, tmp_path):
    result = fit_run(make_run(data, epochs=1, lr=1e-12, head_scale=0.0), data, tmp_path, ONE_THREAD)
    assert result.metrics["loss"] == pytest.approx(math.log(3), abs=1e-4)


def test_linear_and_cosine_end_at_the_least_rate(data, tmp_path):
    for schedule in ("linear", "cosine"):
        run = make_run(data, epochs=5, schedule=schedule, min_lr=1e-3)
        rates = [epoch["lr_end"] for epoch in fit_run(run, data, tmp_path, ONE_THREAD).history]
        assert rates[-1] == pytest.approx(1e-3, rel=0.05)
        if schedule == "linear":
            assert [a - b for a, b in zip(rates, rates[1:], strict=False)] == pytest.approx([2e-4] * 4)


def test_weight_decay_spares_norms_biases_and_layer_scale(data):
    network = RoadmapNet(END)
    for decay_all, spared in ((False, {name for name, p in network.named_parameters() if p.ndim < 2}), (True, set())):
        run = make_run(data, weight_decay=0.05, decay_all=decay_all)
        module = TaskModule(
            network, run.recipe, Batcher(data, run.recipe, 0), fused=False, watcher=Watch(), save=print, tested=()
        )
        groups = module.configure_optimizers()["optimizer"].param_groups
        free = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
        assert {name for name, p in network.named_parameters() if id(p) in free} == spared


EVERYTHING = {
    "epochs": 4, "mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1, "random_erasing": 0.5, "crop": "resized",
    "flip": True, "weight_decay": 0.05, "warmup_epochs": 1, "clip_gradient": 1.0,
}  # fmt: skip


BY_IMAGE = EVERYTHING | {"randaugment": "rand-m9-mstd0.5-inc1", "layer_decay": 0.8}


def suits(name):
    """Whether a recipe has no setting that means nothing to a classifier."""
    unused = default_task().unused
    return all(getattr(load_recipe(name), one) == getattr(Recipe("none"), one) for one in unused)


STOPS = [("everything", EVERYTHING, 1), ("everything", EVERYTHING, 3), ("by image", BY_IMAGE, 4),
         ("average", EVERYTHING | {"ema": 0.9, "ema_warmup": True, "accumulate": 2}, 3),
         *((name, name, 3) for name in recipe_names() if suits(name))]  # fmt: skip


@pytest.mark.parametrize(("settings", "stopped"), [case[1:] for case in STOPS], ids=[f"{c[0]}-{c[2]}" for c in STOPS])
def test_a_stopped_run_goes_on_as_if_never_stopped(data, tmp_path, monkeypatch, settings, stopped):
    monkeypatch.setattr(fit, "CHECKPOINT_INTERVAL", 0.0)
    run = make_run(data, END.replace(stochastic_depth=0.3), **({} if isinstance(settings, str) else settings))
    if isinstance(settings, str):
        run = dataclasses.replace(run, recipe=load_recipe(settings).with_training(4, 16))
    execution = dataclasses.replace(ONE_THREAD, workers=0)
    whole = fit_run(run, data, tmp_path / "whole", execution)

    class Stop(Exception):
        pass

    class Stopping(Watch):
        def report(self, progress):
            if progress.epoch == stopped:
                raise Stop

    with pytest.raises(Stop):
        fit_run(run, data, tmp_path / "parts", execution, Stopping())
    checkpoint = tmp_path / "parts" / fit.CHECKPOINT
    if stopped > 1:  # the checkpoint is of an epoch before the stop, and holds no code
        assert torch.load(checkpoint, weights_only=True)["epoch"] == stopped - 2
    seen = []

    class Listening(Watch):
        def report(self, progress):
            if not progress.fraction:  # an epoch's end; a slow machine reports within epochs as well
                seen.append(progress.epoch)

    resumed = fit_run(run, data, tmp_path / "parts", execution, Listening())
    assert min(seen) == stopped, "where it went on"
    assert same_weights(whole.network, resumed.network)
    assert whole.metrics["top1"] == resumed.metrics["top1"] and len(resumed.history) == 4
    assert (whole.correct == resumed.correct).all()
    assert 100 * whole.correct.sum() / len(data.test) == whole.metrics["top1"]
    assert not same_weights(whole.network, fit_run(dataclasses.replace(run, seed=1), data, tmp_path, execution).network)


def test_a_run_that_is_asked_to_stop_ends_its_epoch_and_is_saved(data, tmp_path):
    run = make_run(data)
    whole = fit_run(run, data, tmp_path / "whole", ONE_THREAD)

    class Stopping(Watch):
        def wants_stop(self):
            return True

    for epoch in (1, 2):  # an epoch at each start
        with pytest.raises(StoppedError):
            fit_run(run, data, tmp_path / "parts", ONE_THREAD, Stopping())
        saved = torch.load(tmp_path / "parts" / fit.CHECKPOINT, weights_only=True)
        assert len(saved["roadmap_history"]) == epoch
    resumed = fit_run(run, data, tmp_path / "parts", ONE_THREAD, Stopping())  # the last epoch: there is nothing to save
    assert same_weights(whole.network, resumed.network)


def test_a_run_goes_on_with_the_threads_it_was_begun_with(data, tmp_path):
    class Stopping(Watch):
        def wants_stop(self):
            return True

    with pytest.raises(StoppedError):
        fit_run(make_run(data), data, tmp_path, Execution(device="cpu", threads=2), Stopping())
    fit_run(make_run(data), data, tmp_path, ONE_THREAD)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_accuracy_on_training_images_is_counted(data, tmp_path):
    """A network that learns nothing any more is tested on the images it trains on, without augmentation."""
    run = make_run(data, END, epochs=1, lr=1e-12, batch_size=24)
    result = fit_run(run, data, tmp_path, ONE_THREAD)
    network = result.network.train()
    right = sum(
        int((network(images).argmax(1) == labels).sum()) for images, labels in Batcher(data, run.recipe, 0).training(0)
    )
    assert result.history[0]["train_top1"] == pytest.approx(100 * right / 72)


def test_a_damaged_checkpoint_is_not_believed(data, tmp_path):
    run = make_run(data, epochs=1)
    whole = fit_run(run, data, tmp_path / "whole", ONE_THREAD)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / fit.CHECKPOINT).write_bytes(b"PK\x03\x04 cut off")
    assert same_weights(whole.network, fit_run(run, data, tmp_path / "broken", ONE_THREAD).network)


def test_a_run_that_diverges_says_so(data, tmp_path):
    result = fit_run(make_run(data, START, optimizer="sgd", lr=999.0), data, tmp_path, ONE_THREAD)
    assert result.metrics["status"] == "failed" and result.metrics["top1"] is None
    assert result.metrics["reason"].startswith("diverged: ")
    assert "loss is nan" in result.metrics["reason"] or "loss is inf" in result.metrics["reason"]


def test_bf16_and_fp32_agree_roughly_and_reach_the_same_place(data, tmp_path):
    plain, half = (
        fit_run(make_run(data, epochs=6, precision=precision), data, tmp_path / precision, ONE_THREAD)
        for precision in ("32", "bf16-mixed")
    )
    assert not same_weights(plain.network, half.network)
    # three colours are told apart at once
    assert plain.metrics["top1"] > 80 and half.metrics["top1"] > 80


@pytest.mark.parametrize(("optimizer", "precision"), [("sgd", "32"), ("sgd", "bf16-mixed"), ("adamw", "bf16-mixed")])
def test_gradients_are_clipped_at_every_precision(data, tmp_path, optimizer, precision):
    """SGD without momentum moves the weights at every step by the rate times a gradient no longer than the clip."""
    clip, lr = 1e-3, 0.1
    run = make_run(data, optimizer=optimizer, lr=lr, momentum=0.0, weight_decay=0.0, clip_gradient=clip,
                   precision=precision)  # fmt: skip

    def weights(network):
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

    module, _ = make_fit(run, data, tmp_path, ONE_THREAD, Watch())
    before, steps = weights(module.network), run.recipe.epochs * module.batcher.steps
    result = fit_run(run, data, tmp_path, ONE_THREAD)
    assert result.metrics["status"] == "done"
    moved = (weights(result.network) - before).norm()
    assert 0 < moved <= clip * lr * steps if optimizer == "sgd" else moved > clip * lr * steps


def test_signatures_stay_what_they_were(data):
    """Settings that came later leave the names of older runs alone."""
    recipe = Recipe("r", epochs=2, mixup=0.8)
    design = Design(blocks=(1, 1), widths=(8, 16))
    run = RunSpec("resnet50", "gelu", True, 8, 1.0, design, recipe, "folder", "0123", 16, 3)
    assert run.signature == "c44ad4b1110bb697"
    for name, value in {"ema": 0.9, "accumulate": 2, "layer_decay": 0.5, "min_lr": 1e-6, "head_scale": 0.1}.items():
        assert dataclasses.replace(run, recipe=dataclasses.replace(recipe, **{name: value})).signature != run.signature
    assert RunSpec.from_dict(json.loads(json.dumps(run.to_dict()))) == run


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 4}, "are not those of run"),
        ({"colour": "red"}, "of another version"),
        ({"design": {"blocks": [1]}}, "one number a stage each"),
    ],
)
def test_a_changed_record_is_not_believed(data, change, sentence):
    with pytest.raises(RoadmapError, match=sentence):
        RunSpec.from_dict(make_run(data).to_dict() | change)


def test_every_part_of_the_result_is_in_the_signature(data):
    run = make_run(data)
    changed = [
        dataclasses.replace(run, seed=1),
        dataclasses.replace(run, precision="bf16-mixed"),
        dataclasses.replace(run, image_size=32),
        dataclasses.replace(run, data_fingerprint="other"),
        dataclasses.replace(run, design=run.design.replace(kernel_size=3)),
        dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, lr=1.0)),
    ]
    assert len({run.signature, *(other.signature for other in changed)}) == 7
    same = dataclasses.replace(run.recipe, lr=run.recipe.lr * 2, lr_batch_size=32, warmup_epochs=0)
    assert dataclasses.replace(run, recipe=same).signature == run.signature
    labels = dataclasses.replace(run, step="other", recipe=dataclasses.replace(run.recipe, name="other", why="because"))
    assert labels.signature == run.signature


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"device": "cuda:x"}, "device is 'cuda:x'"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"device": "cpu:1"}, "device is 'cpu:1'"),
        ({"threads": 0}, "threads is 0"),
        ({"workers": -1}, "workers is -1"),
    ],
)
def test_impossible_executions(arguments, sentence):
    with pytest.raises(RoadmapError, match=sentence):
        Execution(**arguments)
