"""Weights in and out: our own files, timm's ResNet and ConvNeXt, and the official ConvNeXt checkpoints."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from roadmap.checks import RoadmapError
from roadmap.files import whole_file
from roadmap.network.building import build_network, design_of
from roadmap.network.description import Description, read_description
from roadmap.network.design import CONVNEXT, Design
from roadmap.network.families import NetworkDesign, family_of, on_ladder

if TYPE_CHECKING:
    from roadmap.network.model import RoadmapNet

#: What the released code of ConvNeXt calls a block's layers and the head, isotropic or not.
OFFICIAL = (
    (r"\.conv1", ".dwconv"),
    (r"\.norm1", ".norm"),
    (r"\.conv2", ".pwconv1"),
    (r"\.conv3", ".pwconv2"),
    (r"\.layer_scale", ""),
    (r"^head\.norm", "norm"),
    (r"^head\.fc", "head"),
)
#: Layout -> what to replace, in this order, in our names to get its names. Loading reads the same table backwards.
LAYOUTS: dict[str, tuple[tuple[str, str], ...]] = {
    "roadmap": (),
    "timm ResNet": (
        (r"^stem(\.resnet_d_stem)?\.conv\b", "conv1"),
        (r"^stem(\.resnet_d_stem)?\.norm\b", "bn1"),
        *((rf"^stages\.{stage}\.blocks", f"layer{stage + 1}") for stage in range(4)),
        (r"\.norm", ".bn"),
        (r"\.shortcut", ".downsample"),
        (r"\.branch\.se\.", ".se."),
        (r"^head\.fc", "fc"),
    ),
    "timm ConvNeXt": (
        (r"^stem\.conv\b", "stem.0"),
        (r"^stem\.norm_out", "stem.1"),
        (r"\.conv1", ".conv_dw"),
        (r"\.norm1", ".norm"),
        (r"\.conv2", ".mlp.fc1"),
        (r"\.conv3", ".mlp.fc2"),
        (r"\.hidden\.grn\.", ".mlp.grn."),
        (r"\.layer_scale", ""),
    ),
    "official ConvNeXt": (
        (r"^stem\.conv\b", "downsample_layers.0.0"),
        (r"^stem\.norm_out", "downsample_layers.0.1"),
        (r"^stages\.(\d+)\.downsample", r"downsample_layers.\1"),
        (r"\.blocks", ""),
        *OFFICIAL,
    ),
    "official isotropic ConvNeXt": (
        (r"^stem\.conv\b", "stem"),
        (r"^stages\.0\.", ""),
        *OFFICIAL,
    ),
}

#: Some tensors of every network, one of which plug-in layers always leave there: what a layout is recognised by.
TELLING = ("stem.conv.weight", "stages.0.blocks.0.conv3.weight")

#: What timm's two families have fixed, as one design each, the flags that they leave free, and the layers they know.
TIMM_DESIGNS = {
    "timm ResNet": (
        Design(),
        ("activation", "groups", "expansion", "stem_width"),
        ("se", "resnet_d_stem"),
    ),
    "timm ConvNeXt": (
        CONVNEXT,
        ("activation", "kernel_size", "layer_scale"),
        ("grn",),
    ),
}
FREE_IN_BOTH = ("blocks", "widths", "stochastic_depth", "layers", "in_channels", "num_classes")
TIMM_STAGES = 4
TIMM_RESNET_STEM = 64  # timm's ResNet has this stem whatever its stages' widths are, unless it is a deep one

#: Under which keys checkpoints hold their weights, averaged ones before all, as timm takes them, and what wrappers put
#: before each name.
CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.", "network.", "model.")
#: Containers within containers are opened so often.
DEEPEST = 8
#: Plain data that training scripts write beside weights, by the names in their pickles. Nothing of it is made: each has
#: a `_Ignored` in its place.
HARMLESS = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"{home}.{kind}Path" for home in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows")),
    *(f"{home}.multiarray.{make}" for home in ("numpy.core", "numpy._core") for make in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "numpy.ndarray",
)
#: What torch says of files that it reads only where it may run their code.
WITH_CODE = {"TorchScript": "a TorchScript archive", ".tar": "a checkpoint in torch's old tar format"}
NAMED_IN_ERRORS = 3
#: The one key of our files' metadata: safetensors writes several in an order that differs from time to time.
METADATA_KEY = "roadmap"


def load_weights(network: nn.Module, source: str | os.PathLike[str] | Mapping[str, Any] | None = None) -> None:
    """Load weights into ``network``, in place, from a file or a state dict in any known layout.

    ``source`` is a path to a safetensors file or to a torch checkpoint, whatever its ending, or a state dict. Its
    layout is recognised by its names: ours, timm's ResNet (ResNeXt, SE-ResNet and the deep stem with it), timm's
    ConvNeXt (V2 with it), or the official ConvNeXt's, isotropic or not; containers such as ``{"model": ...}`` and the
    prefixes of Lightning, DDP and ``torch.compile`` are taken off. Where there are several, averaged weights
    (``state_dict_ema``, ``model_ema``) go first, as in timm. Every tensor of the network must be there with its shape,
    and none besides; linear (out, in) weights fill 1x1 convolutions (out, in, 1, 1), and the counters
    ``num_batches_tracked`` may be missing.

    No code in a file is ever run. Plain data beside the weights (numbers, text, ``argparse.Namespace``, paths, NumPy's
    scalars and arrays) is passed over; a file with any other object is refused.

    Raises `RoadmapError`, with the network unchanged, for a file that cannot be read and for weights that do not fit.
    `roadmap.load` builds the network of a file that roadmap wrote, too.
    """
    if source is None:
        raise RoadmapError("load_weights takes a network and a file; roadmap.load takes a file and builds its network")
    open_weights(source).load_into(network)


@dataclass(frozen=True)
class Weights:
    """Weights that have been read and belong to no network yet: the ``tensors`` by the names of their ``layout``,
    what errors call them, and the metadata of a file of ours."""

    where: str
    layout: str
    tensors: Mapping[str, Tensor]
    metadata: str | None

    def description(self) -> Description | None:
        """What the file says of its network, None where it says nothing. Raises `RoadmapError` for nonsense."""
        try:
            return None if self.metadata is None else read_description(self.metadata)
        except RoadmapError as error:
            raise RoadmapError(f"{self.where} does not say what network it is for: {error}") from None

    def completed(self, design: NetworkDesign) -> NetworkDesign:
        """The design with as many classes as the classifier here has, and with layer scale if there is one here.

        Raises `RoadmapError` where there is no classifier.
        """
        if not on_ladder(design):  # whose classifier may have any name: its files say what they are
            told, family = self.description(), family_of(design)
            if told is None or family_of(told.design) is not family:
                raise RoadmapError(f"{self.where} does not say that it is for {family.title(design)}")
            return design.replace(num_classes=told.design.num_classes)
        classifier = self.tensors.get(_renamed("head.fc.weight", self.layout))
        if classifier is None or classifier.ndim != 2:
            raise RoadmapError(f"{self.where} ({self.layout} layout) has no classifier")
        scaled = _renamed("stages.0.blocks.0.layer_scale.gamma", self.layout) in self.tensors
        return design.replace(num_classes=len(classifier), layer_scale=1e-6 if scaled else None)

    def of(self, design: NetworkDesign) -> dict[str, Tensor]:
        """The tensors of this design's network, as `fitted`, without building it in memory."""
        if family_of(design).fewest_tensors(design) > len(self.tensors):
            raise RoadmapError(f"{self.where} does not fit this network: it has more blocks than the file has tensors")
        try:
            with torch.device("meta"):
                network = build_network(design)
        except RuntimeError:
            raise RoadmapError(f"{self.where} does not fit this network, which is too large for any memory") from None
        return self.fitted(network)

    def fitted(self, network: nn.Module) -> dict[str, Tensor]:
        """The tensors by the network's own names, in its shapes. Raises `RoadmapError` where they do not fit."""
        own = network.state_dict()
        names = {_renamed(name, self.layout): name for name in own}
        counters = {theirs for theirs, name in names.items() if name.endswith("num_batches_tracked")}
        fitting = {
            theirs: _as_convolution(self.tensors[theirs], own[names[theirs]])
            for theirs in names
            if theirs in self.tensors
        }
        misshapen = [
            f"{theirs} of shape {tuple(tensor.shape)} instead of {tuple(own[names[theirs]].shape)}"
            for theirs, tensor in fitting.items()
            if tensor.shape != own[names[theirs]].shape
        ]
        problems = {
            "missing keys": [theirs for theirs in names if theirs not in self.tensors and theirs not in counters],
            "unexpected keys": [theirs for theirs in self.tensors if theirs not in names],
            "wrong shapes": misshapen,
        }
        if any(problems.values()):
            told = "; ".join(f"{word} {_listed(found)}" for word, found in problems.items() if found)
            remedy = "" if self.metadata is None else f"; roadmap.load({self.where}) builds the network that it is for"
            raise RoadmapError(f"{self.where} ({self.layout} layout) does not fit this network: {told}{remedy}")
        return {names[theirs]: tensor for theirs, tensor in fitting.items()}

    def load_into(self, network: nn.Module) -> None:
        """Load the weights in place. Raises `RoadmapError`, with the network unchanged, where they do not fit."""
        network.load_state_dict({**network.state_dict(), **self.fitted(network)})


def open_weights(source: str | os.PathLike[str] | Mapping[str, Any]) -> Weights:
    """Read weights as `load_weights` does, and what a file of ours says of its network.

    Raises `RoadmapError` for a file that cannot be read and for a layout that is not known.
    """
    where = "the state dict" if isinstance(source, Mapping) else f"'{os.fspath(source)}'"
    found, metadata = (source, None) if isinstance(source, Mapping) else _read(Path(source))
    # A file of ours has its network's own names, which may be any where that is one of timm's.
    weights = found if metadata is not None else _without_prefixes(_without_containers(found))
    if not any(isinstance(value, Tensor) for value in weights.values()):
        keys = f"its keys are {_listed([*map(str, weights)])}" if weights else "it is empty"
        raise RoadmapError(f"{where} holds no network weights: {keys}")
    for name, tensor in weights.items():
        if not isinstance(tensor, Tensor):
            raise RoadmapError(f"{where} holds {name} as {type(tensor).__name__}, but weights are tensors")
        if tensor.layout is not torch.strided or tensor.is_meta:
            raise RoadmapError(
                f"{where} holds {name} without its numbers: it is sparse, quantized or on the meta device"
            )
        if not tensor.is_floating_point() and not name.endswith("num_batches_tracked"):
            raise RoadmapError(f"{where} holds {name} as {tensor.dtype}, but weights are floating-point numbers")
    for layout in LAYOUTS:
        if metadata is not None or any(_renamed(name, layout) in weights for name in TELLING):
            break
    else:
        raise RoadmapError(
            f"{where} has the layout of no known network ({', '.join(LAYOUTS)}): it holds {_listed(sorted(weights))}"
        )
    return Weights(where, layout, weights, metadata)


def to_timm(network: RoadmapNet) -> dict[str, Tensor]:
    """The network's state dict with the names and shapes of timm's ResNet or timm's ConvNeXt.

    The tensors share memory with the network's. Raises `RoadmapError` where its design is neither of the two.
    """
    design = network.design
    differing = {
        layout: [
            field.name
            for field in fields(Design)
            if field.name not in (*FREE_IN_BOTH, *free) and getattr(design, field.name) != getattr(fixed, field.name)
        ]
        for layout, (fixed, free, _) in TIMM_DESIGNS.items()
    }
    for layout, (_, _, known) in TIMM_DESIGNS.items():
        if not set(design.layers) <= {(name, ()) for name in known}:
            differing[layout].append("layers")
    if len(design.blocks) != TIMM_STAGES:
        for flags in differing.values():
            flags.append("blocks")
    if design.stem_channels != TIMM_RESNET_STEM and ("resnet_d_stem", ()) not in design.layers:
        differing["timm ResNet"].append("widths" if design.stem_width is None else "stem_width")
    if isinstance(design.groups, str) or 256 % (design.groups * design.expansion):
        differing["timm ResNet"].append("groups")  # timm counts a group's channels in 64ths of a quarter of the output
    for layout, flags in differing.items():
        if not flags:
            tensors = {_renamed(name, layout): tensor for name, tensor in network.state_dict().items()}
            linear = [name for name in tensors if re.search(r"\.mlp\.fc\d\.weight$", name)]
            return {**tensors, **{name: tensors[name].flatten(1) for name in linear}}
    told = " and from ".join(f"{layout} in {_listed(flags)}" for layout, flags in differing.items())
    raise RoadmapError(f"timm has no such network: it differs from {told}")


def save_weights(network: nn.Module, path: str | os.PathLike[str], **facts: Any) -> None:
    """Write the network's state dict as a safetensors file, in our own layout; ``path`` is never left half-written.

    The file's metadata hold a `Description` of the network: its design and, where given, the other ``facts`` of one,
    such as ``class_names``. Equal weights and descriptions are equal bytes.
    """
    tensors = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    metadata = {METADATA_KEY: Description(design_of(network), **facts).to_text()}
    with whole_file(Path(path)) as temporary:
        save_file(tensors, temporary, metadata=metadata)


class _Ignored:
    """Stands for an object beside the weights: it is given all that the object is made of, and does nothing."""

    def __new__(cls, *_: Any) -> _Ignored:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _read(path: Path) -> tuple[Mapping[str, Any], str | None]:
    """What a file holds, and the metadata of one of ours. Its first bytes say what it is."""
    if not path.is_file():
        raise RoadmapError(f"there is no file '{path}' to load weights from")
    try:
        with path.open("rb") as file:
            if file.read(9)[8:] == b"{":  # safetensors: the length of the header in 8 bytes, and the header, in JSON
                with safe_open(path, "pt") as content:
                    return load_file(path), (content.metadata() or {}).get(METADATA_KEY)
            file.seek(0)
            with torch.serialization.safe_globals([_ignored(name) for name in HARMLESS]):
                found = torch.load(file, map_location="cpu", weights_only=True)  # by its path, its ending would count
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        what = f"beside weights it holds {refused[1]}" if refused else "it is no checkpoint of torch"
        raise RoadmapError(
            f"'{path}' is not loaded: {what}, and code in a file is never run; save the weights alone, as "
            "torch.save(network.state_dict(), path) does"
        ) from error
    except Exception as error:  # torch and safetensors raise a dozen kinds for a broken file
        kind = next(
            (kind for word, kind in WITH_CODE.items() if "weights_only" in str(error) and word in str(error)), ""
        )
        if kind:
            raise RoadmapError(f"'{path}' is {kind}, whose code is never run: save its state_dict() alone") from error
        raise RoadmapError(f"'{path}' cannot be read: it is damaged, cut off, or not a checkpoint") from error
    if not isinstance(found, Mapping):
        raise RoadmapError(f"'{path}' holds a {type(found).__name__}, but must hold a state dict")
    return found, None


def _ignored(name: str) -> type:
    module, _, short = name.rpartition(".")
    return type(short, (_Ignored,), {"__module__": module})


def _without_containers(weights: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(DEEPEST):
        inner = {key: value for key, value in weights.items() if isinstance(value, Mapping)}
        known = [inner[key] for key in CONTAINERS if key in inner]
        if not known and not any(isinstance(value, Tensor) for value in weights.values()):
            known = [value for value in inner.values() if any(isinstance(one, Tensor) for one in value.values())]
            known = known if len(known) == 1 else []
        weights = known[0] if known else weights
    return weights


def _without_prefixes(weights: Mapping[str, Any]) -> Mapping[str, Any]:
    for prefix in PREFIXES:
        inner = {str(name)[len(prefix) :]: value for name, value in weights.items() if str(name).startswith(prefix)}
        if inner:
            return _without_prefixes(inner)
    return weights


def _renamed(name: str, layout: str) -> str:
    for ours, theirs in LAYOUTS[layout]:
        name = re.sub(ours, theirs, name)
    return name


def _as_convolution(tensor: Tensor, target: Tensor) -> Tensor:
    return tensor[:, :, None, None] if tensor.ndim == 2 and target.shape[2:] == (1, 1) else tensor


def _listed(names: list[str]) -> str:
    more = len(names) - NAMED_IN_ERRORS
    return ", ".join(names[:NAMED_IN_ERRORS]) + (f" and {more} more" if more > 0 else "")
