"""How networks look around: which of their operations mix positions, and how far they do see at initialisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Rectangle

from roadmap.checks import RoadmapError
from roadmap.formatting import label, macs_unit
from roadmap.network.design import Design
from roadmap.network.layers import Layer, find_layer, in_words
from roadmap.plotting.style import EDGE, FAINT, PAPER, Drawn, Look, line_of, open_sheet
from roadmap.processes import one_thread

if TYPE_CHECKING:
    from roadmap.explaining.explanation import BuiltNetwork

#: What a convolution or linear layer is for -> its colour.
PURPOSES = {"spatial": PAPER, "1x1": "#56B4E9", "stem, between stages, head": "#999999"}
#: Random images whose gradients make an effective receptive field, and fewer where they have more pixels in all.
IMAGES, PIXELS = 8, 2**17


def operations(network: BuiltNetwork) -> dict[str, float]:
    """GMACs of one image by `PURPOSES`: of the blocks' spatial convolutions, of their 1x1 ones, and of all else.

    Each layer has C C' k² / g multiply-accumulates at every position of its output, as its module was built.
    """
    sums = dict.fromkeys(PURPOSES, 0.0)
    for piece in network.layers:
        if piece.kind not in ("convolution", "linear"):
            continue
        kernel, (incoming, outgoing) = piece.facts.get("kernel", (1, 1)), piece.facts["channels"]
        weights = math.prod(kernel) * incoming * outgoing / piece.facts.get("groups", 1)
        purpose = "stem, between stages, head"
        if ".blocks." in piece.name and ".shortcut" not in piece.name:
            purpose = "1x1" if math.prod(kernel) == 1 else "spatial"
        sums[purpose] += weights * math.prod(piece.output[1:]) / 1e9
    return sums


def spatial_share(network: BuiltNetwork) -> float:
    """The share of a network's operations that is in its blocks' spatial convolutions, 0 to 1."""
    split = operations(network)
    return split["spatial"] / sum(split.values())


def draw_operations(networks: Mapping[str, BuiltNetwork], width: str = "page", caption: bool | None = None) -> Drawn:
    """The operations of networks by what they are for, a bar each. Raises `RoadmapError` for an unknown ``width``."""
    look = Look(width, caption=caption)
    row, small = 1.3 * line_of(look.size.text), line_of(look.size.small)
    split = {name: operations(network) for name, network in networks.items()}
    shares = {name: spatial_share(network) for name, network in networks.items()}
    first, last = next(iter(shares)), next(reversed(shares))
    scale, unit = macs_unit(sum(one.values()) for one in split.values())
    percent = {name: f"{100 * share:.0f} % of the operations of {name}" for name, share in shares.items()}
    headline = f"Spatial convolutions: {percent[first]}, {percent[last]}"
    how = "Multiply-accumulates of convolution and linear layers for one image, by what the layer is for."
    with look.style():
        sheet = open_sheet(look, headline, how, row * len(split) + 4 * small)
        names = max(look.measure(name) for name in split) + 0.1
        axes = sheet.axes(EDGE + names, sheet.top + 1.5 * small, sheet.room - names, row * len(split), "operations")
        ends = np.zeros(len(split))
        x = EDGE
        for purpose, colour in PURPOSES.items():
            values = np.array([one[purpose] for one in split.values()]) * scale
            axes.barh(range(len(split)), values, left=ends, color=colour, height=0.7)
            ends += values
            sheet.write(x, sheet.top, f"■ {purpose}", va="top", size=look.size.small, color=colour)
            x += look.measure(f"■ {purpose}", look.size.small) + 0.15
        axes.set_yticks(range(len(split)), list(split), size=look.size.text)
        axes.set(ylim=(len(split) - 0.5, -0.5), xlabel=f"{unit}, one image")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return sheet.figure


def field_of(network: BuiltNetwork, side: int) -> np.ndarray:
    """The `effective_field` of a built network behind its second stage, for images of ``side`` pixels; it is computed
    once, and not to be changed."""
    design = Design(**network.design)
    return _field(design, side, tuple(find_layer(name) for name, _ in design.layers))


@lru_cache(maxsize=256)
def _field(design: Design, side: int, plugged: tuple[Layer, ...]) -> np.ndarray:
    """``plugged``: the layers that stand behind their names now; a plug-in file may be loaded anew."""
    return effective_field(design, side, min(IMAGES, 1 + PIXELS // side**2), min(1, len(design.blocks) - 1))


def effective_field(design: Design, side: int = 208, images: int = IMAGES, stage: int = 1, seed: int = 0) -> np.ndarray:
    """How much each pixel changes the middle position behind a stage, in a freshly initialised network: (side, side).

    The absolute gradient of that position's channels, weighted at random, summed over colours and averaged over random
    images of ``side`` pixels: Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural
    Networks" (arXiv 1701.04128). Leaves torch's own random numbers as they are. Raises `RoadmapError` where a layer of
    a plug-in fails on such images.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    from roadmap.network.model import RoadmapNet

    try:
        with one_thread():  # the more of them, the longer they wait for each other on a busy machine
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                network = RoadmapNet(design)
                pixels = torch.randn(images, design.in_channels, side, side, requires_grad=True)
                see = partial(network.forward_intermediates, indices=[stage], stop_early=True, intermediates_only=True)
                for module in network.modules():
                    if isinstance(module, _BatchNorm):
                        module.momentum = 1.0
                with torch.no_grad():
                    see(pixels)
                network.eval()  # with these images' statistics, held fixed: in training they tie every position to all
                features = see(pixels)[0]
                weights = torch.randn(features.shape[:2])  # a plain sum of the channels could cancel
            middle = features.shape[2] // 2
            (features[:, :, middle, middle] * weights).sum().backward()
    except Exception as error:  # a layer of a plug-in, which may do anything
        raise RoadmapError(f"the network has no gradient at {side} px: {in_words(error)}") from error
    assert pixels.grad is not None
    return pixels.grad.abs().sum(dim=1).mean(dim=0).numpy()


def half_side(field: np.ndarray) -> int:
    """Side in pixels of the smallest square around the middle that holds half of a field."""
    middle = len(field) // 2
    squares = [slice(middle - half, middle + half) for half in range(1, middle + 1)]
    sums = [field[square, square].sum() for square in squares]
    return 2 * (1 + int(np.searchsorted(sums, field.sum() / 2)))


def draw_fields(fields: Mapping[str, np.ndarray], width: str = "page", caption: bool | None = None) -> Drawn:
    """Effective receptive fields by name, (side, side) each. Raises `RoadmapError` for an unknown ``width``."""
    look = Look(width, caption=caption)
    columns = 2 if width == "column" else len(fields)
    rows = math.ceil(len(fields) / columns)
    halves = {name: half_side(field) for name, field in fields.items()}
    first, last = min(halves, key=halves.__getitem__), max(halves, key=halves.__getitem__)
    headline = (
        f"Half of what {label(last)} sees lies within {halves[last]} px, of {label(first)} within {halves[first]} px"
    )
    side = len(next(iter(fields.values())))
    how = "Effective receptive fields at initialisation: how much each pixel changes the middle position behind the "
    how += f"second stage (root of the gradient; random images of {side} px). The square holds half of it."
    words, gap = 2.2 * line_of(look.size.text), 0.1
    with look.style():
        panel = (look.size.across - 2 * EDGE - gap * (columns - 1)) / columns
        sheet = open_sheet(look, headline, how, rows * (panel + words))
        for index, (name, field) in enumerate(fields.items()):
            x, y = EDGE + index % columns * (panel + gap), sheet.top + index // columns * (panel + words)
            sheet.write(x, y, label(name), va="top", weight="bold")
            sheet.write(
                x,
                y + line_of(look.size.text),
                f"half within {halves[name]} px",
                va="top",
                color=FAINT,
                size=look.size.small,
            )
            axes = sheet.axes(x, y + words - 0.05, panel, panel, name)
            axes.imshow(np.sqrt(field), cmap="magma", interpolation="nearest")
            axes.set_axis_off()
            corner = (side - halves[name] - 1) / 2
            axes.add_patch(
                Rectangle((corner, corner), halves[name], halves[name], fill=False, edgecolor="#56B4E9")
            )  # seen on dark paper, too
    return sheet.figure
