"""A network that runs while its plug-in layers are watched: each is held to its site."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from roadmap.network.layers import Site, find_layer, in_words, line_in, site_of


class FaultError(Exception):
    """What a check found wrong, in one sentence."""


def run_watched(network: nn.Module, images: Tensor, trace: list | None = None, cut: bool = False) -> Tensor:
    """The logits, with every plug-in layer held to its site. ``trace`` collects (site, output); ``cut``: a layer that
    lets no gradient through is a fault. Raises `FaultError` that names the layer."""
    running: list[tuple[Site, int]] = []

    def enter(module: nn.Module, inputs: tuple) -> None:
        site = site_of(module)
        assert site is not None
        running.append((site, inputs[0]._version))

    def leave(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        site, version = running.pop()
        _check_output(site, inputs[0], output)
        if _is_read_only(site) and inputs[0]._version != version:
            raise FaultError(f"{site} changes its input in place, which the other branch still needs")
        if cut and inputs[0].requires_grad and not _connected(output, inputs[0]):
            raise FaultError(f"{site} lets no gradient through")
        if trace is not None:
            trace.append((site, output.clone()))

    with _hooks(network, enter, leave):
        try:
            return network(images)
        except FaultError:
            raise
        except Exception as error:
            size = size_text((images.shape[2], images.shape[3]))
            what = str(running[-1][0]) if running else "the network"
            raise FaultError(
                f"{what} fails on images of {size} pixels: {in_words(error)}{line_of(network, error)}"
            ) from error


@contextmanager
def _hooks(network: nn.Module, enter: Callable, leave: Callable) -> Iterator[None]:
    handles = []
    for module in network.modules():
        if site_of(module) is not None:
            handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_output(site: Site, x: Tensor, output: Tensor) -> None:
    if not isinstance(output, Tensor):
        raise FaultError(f"{site} returns a {type(output).__name__}, but must return a tensor")
    rounded = [{side // site.stride, -(-side // site.stride)} for side in x.shape[2:]]
    if site.place not in ("stem", "downsample"):
        rounded = [{max(sides)} for sides in rounded]
    fits = output.ndim == 4 and output.shape[:2] == (x.shape[0], site.outgoing)
    if not fits or not all(side in sides for side, sides in zip(output.shape[2:], rounded, strict=True)):
        wanted = ", ".join(map(str, (x.shape[0], site.outgoing, *(max(sides) for sides in rounded))))
        raise FaultError(f"{site} makes {tuple(output.shape)} of {tuple(x.shape)}, but must make ({wanted})")
    if x.isfinite().all() and not output.isfinite().all():
        raise FaultError(f"{site} returns numbers that are not finite")


def _connected(output: Tensor, x: Tensor) -> bool:
    return (
        output.requires_grad
        and torch.autograd.grad(output.sum(), x, retain_graph=True, allow_unused=True)[0] is not None
    )


def _is_read_only(site: Site) -> bool:
    """Whether the input is a block's own, which its other branch needs as well."""
    return site.place == "shortcut" or (site.place == "spatial" and site.path.endswith("conv1"))


def line_of(network: nn.Module, error: BaseException) -> str:
    """Where in the code of one of the network's layers an exception came from."""
    sources = {find_layer(site.layer).source for site in map(site_of, network.modules()) if site is not None}
    return next((line for line in (line_in(source, error) for source in sources) if line), "")


def size_text(size: tuple[int, int]) -> str:
    """Height and width in pixels."""
    return f"{size[0]}x{size[1]}"
