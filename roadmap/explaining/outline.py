"""A built network as a list of its layers, read from its modules, and what differs between two such lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers import DropPath, LayerNorm2d, SelectAdaptivePool2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from roadmap.checks import RoadmapError
from roadmap.explaining.reach import seen_by
from roadmap.network.design import Design
from roadmap.network.layers import in_words, site_of
from roadmap.network.model import RoadmapNet
from roadmap.network.parts import LayerScale

#: Facts that a change of width changes everywhere.
WIDTHS = frozenset({"channels"})


@dataclass(frozen=True)
class Piece:
    """One layer of a network that has been built.

    ``name``: the module's. ``kind``: ``convolution``, ``BatchNorm``, ``GELU``, ... ``facts``: what it was built with:
    ``channels`` (in, out), ``kernel`` and ``stride`` (height, width), ``groups``, ``dilation``, ``bias``, and of a
    plug-in's module ``layer``, its name, ``sees``, the side of what one output depends on (None: all of the input), and
    ``parameters``. ``output``: its shape (C, H, W) for one image; (C,) behind the pooling.
    """

    name: str
    kind: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    output: tuple[int, ...] = ()

    @property
    def words(self) -> str:
        """What it is on one line, such as ``3x3 64→64, groups 64``."""
        facts = self.facts
        shown = [] if self.kind in ("convolution", "linear") else [self.kind]
        if "kernel" in facts:
            shown.append(by(facts["kernel"]))
        if "channels" in facts:
            shown.append("→".join(map(str, facts["channels"])))
        parts = [" ".join(shown)]
        parts += [
            f"{name} {by(facts[name])}" for name in ("groups", "stride", "dilation") if by(facts.get(name, 1)) != "1"
        ]
        if facts.get("bias"):
            parts.append("bias")
        if "layer" in facts:
            sees = facts["sees"]
            parts += [f"sees {'the whole image' if sees is None else by((sees, sees))}"] if sees != 1 else []
            parts.append(f"{facts['parameters']} parameters")
        return ", ".join(parts)


@dataclass(frozen=True)
class Difference:
    """A layer that two networks do not share: ``name`` is the module's, ``before`` and ``after`` what it is there, None
    where one has no such layer; ``changed``: the names of the facts that differ, ``kind`` among them."""

    name: str
    before: Piece | None
    after: Piece | None
    changed: tuple[str, ...]


def by(sizes: Any) -> str:
    """Height and width as ``3x3``; a stride or a number of groups as one number where it can be."""
    if isinstance(sizes, int):
        return str(sizes)
    return "x".join(map(str, sizes))


def outline(network: RoadmapNet, image_size: int) -> tuple[tuple[Piece, ...], tuple[tuple[int, ...], ...]]:
    """All layers of a network on torch's meta device, in the order in which an image passes them, and (C, H, W) behind
    the stem and behind every stage.

    A plug-in's module is one of them, followed by the layers within it. Layers that do nothing are left out.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    behind: dict[int, tuple[int, ...]] = {}

    def note(found: dict[Any, tuple[int, ...]], name: Any) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found.setdefault(name, tuple(output.shape[1:]))

        return hook

    layers = dict(_layers(network, ""))
    hooks = [layer.register_forward_hook(note(shapes, name)) for name, layer in layers.items()]
    parts = [network.stem, *network.stages]
    hooks += [part.register_forward_hook(note(behind, place)) for place, part in enumerate(parts)]
    _run(network, image_size)
    for hook in hooks:
        hook.remove()
    order = list(shapes)
    # a plug-in's module ends after what is within it, and stands before
    first = {
        name: min(order.index(other) for other in order if other == name or other.startswith(f"{name}."))
        for name in order
    }
    order.sort(key=lambda name: (first[name], name.count(".")))
    return tuple(_piece(name, layers[name], shapes[name]) for name in order), tuple(behind.values())


def _run(network: RoadmapNet, image_size: int) -> None:
    image = torch.empty(1, network.in_chans, image_size, image_size, device="meta")
    try:
        with torch.no_grad():
            network.eval()(image)
    except Exception as error:  # a layer of a plug-in that looks at values
        raise RoadmapError(f"the network cannot be followed on torch's meta device: {in_words(error)}") from error


def build_on_meta(design: Design) -> RoadmapNet:
    """The network without any memory for its weights."""
    with torch.device("meta"):
        return RoadmapNet(design).eval()


def _layers(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of every layer that does something."""
    plugged = site_of(module) is not None
    children = list(module.named_children())
    if plugged or not children or isinstance(module, SelectAdaptivePool2d):
        nothing = isinstance(module, (nn.Identity, nn.Flatten)) or (type(module) is nn.Sequential and not children)
        if plugged or not (nothing or (isinstance(module, nn.Dropout) and not module.p)):
            yield name, module
    if not isinstance(module, SelectAdaptivePool2d):
        for child, inner in children:
            yield from _layers(inner, f"{name}.{child}" if name else child)


def _piece(name: str, module: nn.Module, output: tuple[int, ...]) -> Piece:
    site = site_of(module)
    if site is not None:
        facts = {
            "layer": site.layer,
            "channels": (site.incoming, site.outgoing),
            "stride": site.stride,
            "sees": seen_by(module),
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
        }
        return Piece(name, type(module).__name__, facts, output)
    if isinstance(module, nn.Conv2d):
        facts = {
            "kernel": module.kernel_size,
            "channels": (module.in_channels, module.out_channels),
            "groups": module.groups,
            "stride": _one(module.stride),
            "dilation": _one(module.dilation),
            "bias": module.bias is not None,
        }
        return Piece(name, "convolution", facts, output)
    if isinstance(module, nn.Linear):
        facts = {"channels": (module.in_features, module.out_features), "bias": module.bias is not None}
        return Piece(name, "linear", facts, output)
    if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
        kind = "max pooling" if isinstance(module, nn.MaxPool2d) else "average pooling"
        return Piece(name, kind, {"kernel": _two(module.kernel_size), "stride": _one(module.stride)}, output)
    if isinstance(module, SelectAdaptivePool2d):
        return Piece(name, "global average pooling", {}, output)
    kind = type(module).__name__.removesuffix("2d")
    if isinstance(module, (_BatchNorm, LayerNorm2d, LayerScale)):
        return Piece(name, kind, {"channels": (output[0],)}, output)
    return Piece(name, kind, {"rate": module.drop_prob} if isinstance(module, DropPath) else {}, output)


def _two(sizes: Any) -> tuple[int, int]:
    return (sizes, sizes) if isinstance(sizes, int) else tuple(sizes)


def _one(sizes: Any) -> int | tuple[int, ...]:
    """One number for height and width, where it is the same."""
    sizes = _two(sizes)
    return sizes[0] if sizes[0] == sizes[1] else sizes


# --- two networks


def differences(before: Iterable[Piece], after: Iterable[Piece]) -> tuple[Difference, ...]:
    """The layers that are not the same in both, by the name of their module: in the order of ``after``, then those that
    are in ``before`` alone."""
    old, new = ({piece.name: piece for piece in pieces} for pieces in (before, after))
    found = []
    for name in dict.fromkeys([*new, *old]):
        changed = changed_facts(old.get(name), new.get(name))
        if changed:
            found.append(Difference(name, old.get(name), new.get(name), changed))
    return tuple(found)


def changed_facts(before: Piece | None, after: Piece | None) -> tuple[str, ...]:
    """Names of the facts in which two layers differ; ``new`` or ``gone`` for one that only one network has."""
    if before is None or after is None:
        return ("new",) if before is None else ("gone",)
    if before.kind != after.kind:
        return ("kind",)
    names = dict.fromkeys([*before.facts, *after.facts])
    return tuple(name for name in names if before.facts.get(name) != after.facts.get(name))


@dataclass(frozen=True)
class View:
    """One part of a network, such as ``stages.1.blocks.0``: its layers before and after, and (C, H, W) of what goes
    into it; no layers and no shape where a network has no such part."""

    name: str
    before: tuple[Piece, ...]
    after: tuple[Piece, ...]
    input_before: tuple[int, ...]
    input_after: tuple[int, ...]

    @property
    def same(self) -> bool:
        """Whether it is the same in both."""
        return (self.before, self.input_before) == (self.after, self.input_after)


def views(
    before: Sequence[Piece], after: Sequence[Piece], shapes: Sequence[Sequence[tuple[int, ...]]]
) -> tuple[View, ...]:
    """The parts of two networks that show how they differ: an ordinary block always, and of stem, first blocks,
    downsampling and head those in which other facts change than in the parts before; widths alone are no such fact.

    ``shapes``: of either network, what `outline` gives of stem and stages, with the image's in front.
    """
    blocks = [_block_names(pieces) for pieces in (before, after)]
    common = [name for name in blocks[1] if name in blocks[0]] or blocks[1]
    ordinary = _ordinary(common)
    names = ["stem", *sorted({"stages.0.blocks.0", "stages.1.blocks.0", ordinary}), "norm_pre", "head"]
    names.insert(names.index("stages.1.blocks.0"), "stages.1.downsample")
    shown, known = [], {_signature(_view(ordinary, before, after, shapes))} if blocks[0] else set()
    for name in names:
        view = _view(name, before, after, shapes)
        signature = _signature(view)
        if name == ordinary or (signature and signature not in known and view.before + view.after):
            shown.append(view)
            known.add(signature)
    return tuple(shown)


def _block_names(pieces: Iterable[Piece]) -> list[str]:
    return list(
        dict.fromkeys(found.group() for piece in pieces if (found := re.match(r"stages\.\d+\.blocks\.\d+", piece.name)))
    )


def _ordinary(names: Sequence[str]) -> str:
    """A block that is not the first of its stage, if there is one, of the third stage, if there is one."""

    def rank(name: str) -> tuple[bool, bool]:
        stage, block = (int(number) for number in re.findall(r"\d+", name))
        return block > 0, stage == 2

    return max(names, key=rank)


def _view(
    name: str, before: Sequence[Piece], after: Sequence[Piece], shapes: Sequence[Sequence[tuple[int, ...]]]
) -> View:
    parts = [tuple(one for one in pieces if f"{one.name}.".startswith(f"{name}.")) for pieces in (before, after)]
    inputs = [
        _input(name, pieces, known) if part else ()
        for part, pieces, known in zip(parts, (before, after), shapes, strict=True)
    ]
    return View(name, parts[0], parts[1], inputs[0], inputs[1])


def _input(name: str, pieces: Sequence[Piece], shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """(C, H, W) of what goes into a part; ``shapes`` are those of the image, the stem's output and the stages'."""
    if not name.startswith("stages"):
        return shapes[0 if name == "stem" else -1]
    stage, *block = (int(number) for number in re.findall(r"\d+", name))
    downsampling = [piece for piece in pieces if piece.name.startswith(f"stages.{stage}.downsample")]
    if block and block[0] > 0:
        return shapes[stage + 2]
    return downsampling[-1].output if block and downsampling else shapes[stage + 1]


def _signature(view: View) -> frozenset[tuple[str, frozenset[str]]]:
    """What changes within a part, widths aside."""
    found = set()
    for difference in differences(view.before, view.after):
        facts = frozenset(difference.changed) - WIDTHS
        if facts:
            found.add((difference.name.removeprefix(view.name), facts))
    return frozenset(found)
