"""What must hold of a small network: each check gives a sentence, or raises a `FaultError`."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from roadmap.checking.watching import FaultError, run_watched, size_text
from roadmap.cost.counting import count
from roadmap.network.design import Design
from roadmap.network.layers import Site, in_words
from roadmap.network.model import RoadmapNet
from roadmap.network.weights import load_weights, save_weights

CLASSES = 5
#: In double precision: what is no more than rounding, relative to the largest logit, and as a gradient.
ROUNDING = 1e-9
ZERO = 1e-12
#: Single precision against double, relative to the largest logit.
SINGLE = 1e-2
#: Steps of gradient descent on one batch of 8 images, within which its loss must fall below this share of the first.
LEARNING_STEPS, LEARNING_RATE, LEARNT = 10, 0.02, 0.95


@dataclass(frozen=True)
class Subject:
    """What is checked: a network, freshly initialised, and the design ``before`` the step that made it."""

    network: RoadmapNet
    before: Design | None

    @cached_property
    def shaken(self) -> RoadmapNet:
        """A copy in double precision whose parameters are shaken, so that none is without influence by being zero or
        one, and whose statistics are those of some images; in evaluation mode."""
        network = _shaken(_copied(self.network).double())
        with torch.no_grad():
            run_watched(network.train(), images_for(network.design, count=4))
        return network.eval()


def _shapes(subject: Subject) -> str:
    """Every layer keeps to its site, at resolutions that divide well and others."""
    network = subject.network.eval()
    sizes = _sizes(network.design)
    with torch.no_grad():
        for size in sizes:
            logits = run_watched(network, images_for(network.design, size, 1).float())
            if logits.shape != (1, CLASSES):
                raise FaultError(
                    f"images of {size_text(size)} pixels give {tuple(logits.shape)} and not {(1, CLASSES)}"
                )
    return f"images of {', '.join(size_text(size) for size in sizes)} pixels pass through"


def _deterministic(subject: Subject) -> str:
    """Evaluating twice gives the same, and changes nothing."""
    network = _shaken(_copied(subject.network)).eval()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images = images_for(network.design).float()
    first: list[tuple[Site, Tensor]] = []
    second: list[tuple[Site, Tensor]] = []
    with torch.no_grad():
        one, two = run_watched(network, images, trace=first), run_watched(network, images, trace=second)
    for (site, before_it), (_, after) in zip(first, second, strict=False):
        if not torch.equal(before_it, after):
            raise FaultError(f"{site} gives another output every time, also in evaluation")
    if not torch.equal(one, two):
        raise FaultError("in evaluation it gives another output every time")
    for name, tensor in network.state_dict().items():
        if not torch.equal(tensor, state[name]):
            raise FaultError(f"evaluating changes {name}")
    return "evaluating twice gives the same, and changes nothing"


def _precision(subject: Subject) -> str:
    """Parameters can be moved to another type, where the result is the same; and it runs in training."""
    single = _copied(subject.network).eval()
    double = _copied(single).double()
    images = images_for(single.design)
    with torch.no_grad():
        found, expected = run_watched(single, images.float()), run_watched(double, images)
    if expected.dtype != torch.float64:
        raise FaultError(f"in double precision it returns {expected.dtype}")
    _compare(found.double(), expected, SINGLE, "single and double precision differ")
    _ = subject.shaken
    return "single and double precision agree"


def _changes(subject: Subject) -> str:
    """With the step the network is another."""
    assert subject.before is not None
    network, other = subject.network, RoadmapNet(subject.before)
    shapes = [{name: tensor.shape for name, tensor in net.state_dict().items()} for net in (network, other)]
    if shapes[0] != shapes[1]:
        return f"it has {count_parameters(network)} parameters and {count_parameters(other)} without the step"
    network = _copied(subject.shaken)
    other.double().load_state_dict(network.state_dict())
    with torch.no_grad():
        for train in (False, True):
            for size in _sizes(network.design)[:2]:
                images = images_for(network.design, size)
                torch.manual_seed(1)
                one = network.train(train)(images)
                torch.manual_seed(1)
                if not _close(one, other.train(train)(images)):
                    return "with the same weights it computes something else than without the step"
    raise FaultError("it changes nothing: with the same weights it computes the same as without the step")


def _gradients(subject: Subject) -> str:
    """Every parameter that is trained receives a finite gradient, and matters in training or in evaluation."""
    network = _copied(subject.shaken)
    images = images_for(network.design, count=4)
    largest: dict[str, float] = {}
    for train in (True, False):
        network.train(train).zero_grad()
        logits = run_watched(network, images, cut=True)
        (logits * torch.randn(logits.shape, dtype=logits.dtype)).sum().backward()
        for name, parameter in network.named_parameters():
            if parameter.requires_grad and parameter.grad is None:
                raise FaultError(f"{name} is not used: it receives no gradient")
            if parameter.grad is not None:
                if not parameter.grad.isfinite().all():
                    raise FaultError(f"the gradient of {name} is not finite")
                largest[name] = max(largest.get(name, 0.0), float(parameter.grad.abs().max()))
    for name, value in largest.items():
        if value < ZERO:
            raise FaultError(f"{name} has no influence: its gradient is zero")
    return f"all {len(largest)} parameters receive a gradient"


def _batches(subject: Subject) -> str:
    """In evaluation an image's result does not depend on the others of its batch."""
    network = subject.shaken
    images = images_for(network.design, count=4)
    together: list[tuple[Site, Tensor]] = []
    alone: list[tuple[Site, Tensor]] = []
    with torch.no_grad():
        found = run_watched(network, images, trace=together)
        expected = run_watched(network, images[:1], trace=alone)
        others = run_watched(network, torch.cat([images[:1], 3 * images[1:] + 1]))
    for (site, with_others), (_, by_itself) in zip(together, alone, strict=False):
        if not _close(with_others[:1], by_itself):
            raise FaultError(f"{site} makes an image's result depend on the others of its batch, also in evaluation")
    for other in (expected, others):
        _compare(found[:1], other[:1], ROUNDING, "in evaluation an image's result depends on the others of its batch")
    return "in evaluation an image's result does not depend on the others of its batch"


def _copies(subject: Subject) -> str:
    """A copy, and what comes back from a weights file, is the network and independent of it."""
    places: dict[int, str] = {}
    for name, tensor in subject.network.state_dict(keep_vars=True).items():
        if tensor.numel() and (other := places.setdefault(tensor.untyped_storage().data_ptr(), name)) != name:
            raise FaultError(f"{other} and {name} share their memory: each place needs a tensor of its own")
    network = subject.shaken
    images = images_for(network.design)
    loaded = RoadmapNet(network.design)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_weights(network, path)
        load_weights(loaded.double(), load_file(path))
    with torch.no_grad():
        expected = run_watched(network, images)
        _compare(run_watched(loaded.eval(), images), expected, ROUNDING, "its weights file does not hold all of it")
        copied = _copied(network)
        _compare(run_watched(copied, images), expected, ROUNDING, "a copy of it is not the same")
        for tensor in copied.state_dict().values():
            tensor.zero_()
        _compare(run_watched(network, images), expected, ROUNDING, "a copy of it is not independent of it")
    return "copies and weights files hold all of it"


def _memory_format(subject: Subject) -> str:
    """The order of numbers in memory does not matter."""
    network = subject.shaken
    images = images_for(network.design)
    with torch.no_grad():
        expected = run_watched(network, images)
        ordered = _copied(network).to(memory_format=torch.channels_last)
        found = run_watched(ordered, images.contiguous(memory_format=torch.channels_last))
    _compare(found, expected, ROUNDING, "with channels last in memory its output differs")
    return "channels last in memory give the same"


def _counts(subject: Subject) -> str:
    """Its cost can be counted, for which it is built without memory for its numbers."""
    size = _sizes(subject.network.design)[0]
    return f"images of {size_text(size)} pixels cost {count(subject.network.design, size).gmacs:.2g} GMACs"


def _learns(subject: Subject) -> str:
    """A few steps of gradient descent on one batch lower its loss."""
    network = _copied(subject.network).train()
    images, labels = images_for(network.design, count=8).float(), torch.arange(8) % CLASSES
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=0.9)
    losses = []
    for _ in range(LEARNING_STEPS):
        loss = nn.functional.cross_entropy(run_watched(network, images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    if not min(losses) < LEARNT * losses[0]:
        raise FaultError(
            f"it does not learn: {len(losses)} steps on one batch take its loss from {losses[0]:.3g} to "
            f"{min(losses):.3g}"
        )
    return f"{len(losses)} steps on one batch take its loss from {losses[0]:.3g} to {min(losses):.3g}"


#: Name, check, and whether the others are without meaning where it fails.
CHECKS: tuple[tuple[str, Callable[[Subject], str], bool], ...] = (
    ("shapes", _shapes, True),
    ("deterministic", _deterministic, True),
    ("precision", _precision, True),
    ("changes", _changes, False),
    ("gradients", _gradients, False),
    ("batches", _batches, False),
    ("copies", _copies, False),
    ("memory_format", _memory_format, False),
    ("counts", _counts, False),
    ("learns", _learns, False),
)


def _sizes(design: Design) -> list[tuple[int, int]]:
    """Heights and widths that divide well, do not, and differ; from 32 pixels on, or whatever this network needs."""
    # unit + 1 has an odd number of positions at every stage where strides round up, the other where they round down
    unit = max(32, design.stem_stride * 2 ** (len(design.blocks) - 1))
    odd = unit * 47 // 32
    return [(unit, unit), (odd, odd), (2 * unit, unit + 1), (7 * unit, 7 * unit)]


def images_for(design: Design, size: tuple[int, int] | None = None, count: int = 2) -> Tensor:
    """Random images in double precision, the same every time; by default of twice the least size."""
    return noise(design.in_channels, size or (2 * _sizes(design)[0][0],) * 2, count)


def noise(channels: int, size: tuple[int, int], count: int) -> Tensor:
    """Random images (count, channels, *size) in double precision, the same every time."""
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, channels, *size, generator=generator, dtype=torch.float64)


@torch.no_grad()
def _shaken(network: RoadmapNet) -> RoadmapNet:
    for parameter in network.parameters():
        size = parameter.square().mean().sqrt()
        parameter.add_(torch.randn_like(parameter) * 0.2 * (size if size > 1e-3 else 1.0))
    return network


def _copied(network: RoadmapNet) -> RoadmapNet:
    try:
        return copy.deepcopy(network)
    except Exception as error:
        raise FaultError(f"it cannot be copied: {in_words(error)}") from error


def _close(found: Tensor, expected: Tensor, tolerance: float = ROUNDING) -> bool:
    return float((found - expected).abs().max()) <= tolerance * max(1e-6, float(expected.abs().max()))


def _compare(found: Tensor, expected: Tensor, tolerance: float, sentence: str) -> None:
    if not _close(found, expected, tolerance):
        difference = float((found - expected).abs().max() / expected.abs().max())
        raise FaultError(f"{sentence}, by {difference:.2g} of the largest logit")


def count_parameters(network: nn.Module) -> int:
    """Parameters of a network, in all."""
    return sum(parameter.numel() for parameter in network.parameters())
