"""Plug-in layers: what anybody may put at the named places of the network, and how it is found. Needs no torch.

A layer is a function from a `Site` to a torch module, registered with `layer`. It lives in a file of its own, which
`load_plugins` reads, or in an installed package with an entry point in the group ``roadmap.plugins``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from roadmap.checks import RoadmapError, cause, check_choice, check_known, check_text, nearest
from roadmap.network.design import Design, check_layer_name

if TYPE_CHECKING:
    from torch import nn

BuildT = TypeVar("BuildT", bound="Callable[..., nn.Module]")
GROUP = "roadmap.plugins"
PACKAGE = Path(__file__).resolve().parents[1]

#: Place -> what stands there.
PLACES = {
    "stem": "Replaces the stem, from the image to the first stage; a norm of separate_downsample still follows.",
    "downsample": "Replaces the norm and the 2x2 stride-2 convolution between stages of separate_downsample.",
    "spatial": "Replaces a block's spatial convolution.",
    "norm": "Replaces every norm: of blocks, stem, shortcuts, downsampling and head.",
    "activation": "Replaces every activation.",
    "hidden": "Is added behind the activation before a block's last 1x1 convolution.",
    "branch": "Is added at the end of a block's residual branch, before layer scale and stochastic depth.",
    "shortcut": "Replaces a block's projection shortcut, where width or resolution change, norm included.",
}
#: Where layers are added, so that several stack; everywhere else one layer replaces what stood there.
ADDED = ("hidden", "branch")


class NoPlaceError(RoadmapError):
    """A network has nothing of what a layer replaces."""


@dataclass(frozen=True)
class Site:
    """Where a layer stands: a module that maps (N, incoming, H, W) to (N, outgoing, H / stride, W / stride).

    What does not divide is rounded up, as a convolution padded by half its kernel does; the stem and the layers
    between stages may round down as well. ``path`` is the module's name in the network, ``stage`` and ``block`` count
    from 0 and are None outside. ``kernel_size``, ``groups`` and ``bias`` are those of a replaced convolution; ``layer``
    is the name of the layer that stands here.
    """

    design: Design
    place: str
    incoming: int
    outgoing: int
    stride: int = 1
    path: str = ""
    stage: int | None = None
    block: int | None = None
    kernel_size: int = 1
    groups: int = 1
    bias: bool = False
    layer: str = ""

    def norm(self, channels: int) -> nn.Module:
        """A fresh norm of the design over (N, channels, H, W): its own, or the plug-in that replaces all norms."""
        from roadmap.network.parts import norm_layer

        return self._within("norm", channels, lambda: norm_layer(self.design, channels))

    def activation(self, channels: int) -> nn.Module:
        """A fresh activation of the design for (N, channels, H, W): its own, or the plug-in that replaces them."""
        from roadmap.network.parts import activation_layer

        return self._within("activation", channels, lambda: activation_layer(self.design))

    def _within(self, place: str, channels: int, own: Callable[[], nn.Module]) -> nn.Module:
        """What stands at a place within this module: the design's own, or the plug-in that replaces it."""
        inner = Site(self.design, place, channels, channels, 1, self.path, self.stage, self.block)
        replaced = list(layers_at(inner).values())
        return replaced[0] if replaced else own()

    def __str__(self) -> str:
        counted = [f"{word} {n}" for word, n in (("stage", self.stage), ("block", self.block)) if n is not None]
        where = ", ".join([self.place, *counted, *([self.path] if self.path else [])])
        return f"the layer '{self.layer}' ({where})"


@dataclass(frozen=True)
class Layer:
    """One registered plug-in layer: its name, its place, why one would want it, the ``section`` of the paper it is
    from, and ``build``, which makes its module for a site.

    ``source`` is the file that registered it and ``digest`` 16 hexadecimal digits of that file; both are None for what
    was typed into an interpreter.
    """

    name: str
    place: str
    why: str
    section: str
    build: Callable[..., nn.Module]
    source: Path | None
    digest: str | None

    @property
    def shipped(self) -> bool:
        """Whether it comes with this package."""
        return self.source is not None and self.source.is_relative_to(PACKAGE)


@dataclass
class _Loading:
    """A plug-in file that is being loaded, or was: what undoes each of its registrations."""

    path: Path
    digest: str
    undo: dict[str, Callable[[], Any]]


_layers: dict[str, Layer] = {}
_loaded: dict[Path, _Loading] = {}
_loading: list[_Loading] = []


def layer(name: str, place: str, why: str, section: str = "") -> Callable[[BuildT], BuildT]:
    """Register the decorated ``build(site, **options) -> nn.Module`` as the layer ``name`` at one of `PLACES`.

    The module maps as its `Site` says, and initialises its own parameters. ``why`` and ``section`` are what the list
    of steps shows. Raises `RoadmapError` for an unknown place, and for a name that another file has taken.
    """
    check_layer_name(name)
    check_choice("place", place, PLACES)
    check_text("why", why)

    def register(build: BuildT) -> BuildT:
        source, digest = _source(build)
        own = bool(_loading) and source == _loading[-1].path
        if own:
            load_installed(name)
        taken = _layers.get(name)
        if taken is not None and (own or taken.source != source):
            raise RoadmapError(f"the layer '{name}' of {source} is already there, from {taken.source}")
        _layers[name] = Layer(name, place, why, section, build, source, digest)
        if own:
            note_registration(f"layer {name}", lambda: _layers.pop(name, None))
        return build

    return register


def note_registration(what: str, undo: Callable[[], Any]) -> None:
    """Tell the plug-in file that is being loaded, if there is one, that it has registered something, and what undoes
    that, should the file fail later on."""
    if _loading:
        _loading[-1].undo[what] = undo


def find_layer(name: str) -> Layer:
    """The layer of that name: registered already, or of an installed plug-in.

    Raises `RoadmapError` with the nearest name where there is none, and for an installed plug-in that fails.
    """
    if name not in _layers:
        load_installed(name)
    if name not in _layers:
        load_installed()
    if name not in _layers:
        known = sorted(_layers)
        raise RoadmapError(
            f"unknown layer '{name}'{nearest(name, known)}; known: {', '.join(known)}, and what plug-in files add"
        )
    return _layers[name]


def layer_names() -> list[str]:
    """Names of all layers, those of installed plug-ins included."""
    load_installed()
    return sorted(_layers)


def load_installed(name: str | None = None) -> None:
    """Import what installed packages offer as entry points of the group ``roadmap.plugins``: all, or those of one name.

    The layers of this package are among them, even where it runs from a folder and was never installed.
    Raises `RoadmapError` for one that fails.
    """
    found = {(point.name, point.value) for point in entry_points(group=GROUP)}
    shipped = [module.name for module in pkgutil.iter_modules([str(PACKAGE / "plugins")])]
    found |= {(module, f"{GROUP}.{module}") for module in shipped if not module.startswith("_")}
    for point, value in sorted(found):
        if name in (None, point):
            try:
                importlib.import_module(value.partition(":")[0])
            except Exception as error:
                raise RoadmapError(f"the installed plug-in '{point}' cannot be loaded: {in_words(error)}") from error


def load_plugins(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> None:
    """Import plug-in files, or one, in any process: each once, and again only when its content has changed.

    Raises `RoadmapError` for a file that is not there, is no .py, fails, or registers nothing.
    """
    for given in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        path = Path(given).expanduser().resolve()
        if not path.is_file():
            raise RoadmapError(f"there is no plug-in file '{given}'")
        if path.suffix != ".py":
            raise RoadmapError(f"the plug-in '{given}' must be a .py file")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RoadmapError(f"the plug-in '{given}' cannot be read: {cause(error)}") from None
        digest = _digest(content)
        before = _loaded.get(path)
        if before is None or before.digest != digest:
            _load(path, content, _Loading(path, digest, {}))


def loaded_plugins() -> tuple[str, ...]:
    """Absolute paths of the plug-in files that this process has loaded, in that order."""
    return tuple(str(path) for path in _loaded)


def registered_by(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Names of the layers and steps that these plug-in files, which are loaded, have registered."""
    loaded = [_loaded[Path(path).expanduser().resolve()] for path in paths]
    return list(dict.fromkeys(what.partition(" ")[2] for loading in loaded for what in loading.undo))


def digest_of(names: Iterable[str]) -> dict[str, str]:
    """Layer -> 16 hexadecimal digits of the file that registered it, for layers from outside this package.

    Raises `RoadmapError` for an unknown layer, and for one that no file holds.
    """
    found = [find_layer(name) for name in names]
    for layer in found:
        if layer.digest is None:
            raise RoadmapError(
                f"the layer '{layer.name}' was defined interactively: put it into a .py file and name that with "
                "--plugin"
            )
    return {layer.name: str(layer.digest) for layer in found if not layer.shipped}


def check_places(design: Design) -> None:
    """Raise `RoadmapError` for a layer of the design that is unknown, and for two that replace the same."""
    replacing: dict[str, str] = {}
    for name, _ in design.layers:
        place = find_layer(name).place
        if place not in ADDED and place in replacing:
            raise RoadmapError(f"the layers '{replacing[place]}' and '{name}' both replace what stands at '{place}'")
        replacing[place] = name


def layers_at(site: Site) -> dict[str, nn.Module]:
    """Fresh modules of the design's layers at the site's place, by the layers' names, which they are sorted by.

    Raises `RoadmapError` for options that a layer does not have, and where it fails.
    """
    return {
        name: _built(find_layer(name), dataclasses.replace(site, layer=name), dict(options))
        for name, options in site.design.layers
        if find_layer(name).place == site.place
    }


def site_of(module: nn.Module) -> Site | None:
    """Where a module stands that a layer has built; None for all other modules."""
    return getattr(module, "_roadmap_site", None)


def _built(layer: Layer, site: Site, options: dict[str, Any]) -> nn.Module:
    parameters = list(inspect.signature(layer.build).parameters.values())[1:]
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        known = [parameter.name for parameter in parameters]
        if not known and options:
            raise RoadmapError(f"the layer '{layer.name}' has no options, but is given {', '.join(options)}")
        check_known(f"option of the layer '{layer.name}'", options, known)
    try:
        module = layer.build(site, **options)
    except RoadmapError as error:
        raise RoadmapError(f"{site}: {error}") from error
    except Exception as error:
        raise RoadmapError(f"{site} cannot be built: {in_words(error)}{line_in(layer.source, error)}") from error
    from torch import nn

    if not isinstance(module, nn.Module):
        raise RoadmapError(f"{site} is a {type(module).__name__}, but must be a torch module")
    if hasattr(nn.Sequential, layer.name):
        raise RoadmapError(f"no layer can be named '{layer.name}': it is a word of torch's own")
    if site_of(module) is not None:
        raise RoadmapError(f"{site} is the module of another place: build a new one for each")
    module._roadmap_site = site  # type: ignore[assignment]
    return module


def _load(path: Path, content: bytes, loading: _Loading) -> None:
    """Run a plug-in file as a module of its own; nothing that it registered stays where it fails."""
    before = _loaded.pop(path, None)
    if before is not None:
        _undo(before)
    module = ModuleType(f"roadmap_plugin_{path.stem}_{loading.digest}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    _loading.append(loading)
    try:
        try:
            exec(compile(content, str(path), "exec"), module.__dict__)
        except (Exception, SystemExit) as error:
            line = line_in(path, error).replace(f"{path.name}, ", "")
            raise RoadmapError(f"the plug-in {path} cannot be loaded: {in_words(error)}{line}") from error
        if not loading.undo:
            raise RoadmapError(f"the plug-in {path} registers no layer and no step")
    except BaseException:
        _undo(loading)
        del sys.modules[module.__name__]
        raise
    finally:
        _loading.pop()
    _loaded[path] = loading


def _undo(loading: _Loading) -> None:
    for undo in loading.undo.values():
        undo()


def in_words(error: BaseException) -> str:
    """An exception on one line: what it says, and its kind where it is none of ours."""
    words = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    if isinstance(error, RoadmapError):
        return words
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def line_in(file: Path | None, error: BaseException) -> str:
    """``" (FILE, line N)"``: the last line of ``file`` that led to the exception; nothing where none did."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    if isinstance(error, SyntaxError) and error.filename == str(file):
        lines = [error.lineno]
    return f" ({file.name}, line {lines[-1]})" if file is not None and lines else ""


def _source(build: Callable[..., Any]) -> tuple[Path | None, str | None]:
    """The file that a function or class stands in, and its digest as it was loaded; None twice where it is typed in."""
    try:
        path = Path(inspect.getfile(inspect.unwrap(build))).resolve()
        if _loading and path == _loading[-1].path:
            return path, _loading[-1].digest
        return path, _digest(path.read_bytes())
    except (TypeError, OSError):
        return None, None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
