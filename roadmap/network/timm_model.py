"""`TimmModel`: any of timm's models as a reference beside the ladder. Needs torch and timm only where it is built."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from roadmap.checks import RoadmapError, check_choice, check_int, check_number, check_text, keep_plain, nearest
from roadmap.network.design import STEM_STRIDES

if TYPE_CHECKING:
    from torch import nn

#: The stem stride at which a model is as timm has it; at others its patches are scaled as the ladder's stems are.
NATIVE_STEM_STRIDE = 4


@dataclass(frozen=True)
class TimmModel:
    """What `Design` is for a rung: all that is free in one of timm's models, freshly initialised.

    timm_model
        timm's name of it, without the tag of pretrained weights.
    num_classes
        Outputs of the classifier.
    image_size
        Side of the images in pixels. Where the model's class takes it, the model is made for it.
    stem_stride
        At 4, patches are as large as timm has them; at 2, half as large, so that on small images the grid is as fine as
        the ladder's. Only models that begin with patches heed it, where timm lets their size be chosen (ViT, Swin and
        ConvNeXt do; ResNets have none, and of MLP-Mixer timm fixes it).
    in_channels
        Channels of the input image.
    stochastic_depth
        timm's ``drop_path_rate``, where the model's class takes it.

    Raises `RoadmapError` with one sentence for a value that cannot be; that timm knows the model, and that it can be
    built for such images, is seen where it is built: `reference_design`.
    """

    timm_model: str
    num_classes: int
    image_size: int
    stem_stride: int = NATIVE_STEM_STRIDE
    in_channels: int = 3
    stochastic_depth: float = 0.0
    layers: ClassVar[tuple[()]] = ()  # no plug-in has a place in timm's models

    def __post_init__(self) -> None:
        keep_plain(self)
        check_text("the timm model", self.timm_model)
        architecture, dot, tag = self.timm_model.partition(".")
        if dot:
            raise RoadmapError(
                f"'{self.timm_model}' names pretrained weights, '{tag}', but references are trained from scratch: "
                f"say {architecture}"
            )
        check_int("num_classes", self.num_classes, 1)
        check_int("image_size", self.image_size, 1)
        check_choice("stem_stride", self.stem_stride, STEM_STRIDES)
        check_int("in_channels", self.in_channels, 1)
        check_number("stochastic_depth", self.stochastic_depth, 0.0, 1.0)

    def replace(self, **changes: Any) -> TimmModel:
        """This model with some values changed."""
        return dataclasses.replace(self, **changes)

    def feature_sizes(self, size: int) -> None:
        """Raise `RoadmapError` where the model that is built for ``image_size`` does not take images of this size.

        `Design.feature_sizes` is asked for the same. Another size than its own is tried out, which needs timm.
        """
        if size != self.image_size:
            self._try(size)

    def build(self) -> nn.Module:
        """The model, freshly initialised: (N, in_channels, H, W) -> (N, num_classes). Its ``design`` is this one.

        Raises `RoadmapError` where timm does not know it, or cannot build it for such images.
        """
        facts = facts_of(self.timm_model)
        options: dict[str, Any] = {"img_size": self.image_size, "drop_path_rate": self.stochastic_depth}
        if facts.patch and self.stem_stride != NATIVE_STEM_STRIDE:
            options["patch_size"] = max(1, int(facts.patch * self.stem_stride / NATIVE_STEM_STRIDE + 0.5))
        options = {name: value for name, value in options.items() if name in facts.accepted}
        network: nn.Module = self._or_say_why(
            self.image_size,
            lambda: _create(self.timm_model, num_classes=self.num_classes, in_chans=self.in_channels, **options),
        )
        network.design = self  # type: ignore[assignment]  # as a RoadmapNet has its own
        return network

    def _try(self, size: int) -> None:
        """Build it without memory and send two images of ``size`` through it."""
        import torch

        with torch.device("meta"):
            network = self.build().train()
            outputs = self._or_say_why(size, lambda: network(torch.zeros(2, self.in_channels, size, size)))
        shape = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        if shape != (2, self.num_classes):
            raise RoadmapError(f"timm's {self.timm_model} is not a classifier: for 2 images it gives {shape}")

    def _or_say_why(self, size: int, work: Callable[[], Any]) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return work()
        except MemoryError:
            raise
        except Exception as error:  # timm's models raise a dozen kinds for an image that they cannot take
            why = " ".join(str(error).split()) or type(error).__name__
            if "out of memory" in why or "can't allocate memory" in why:
                raise
            made = "" if size == self.image_size else f", built for {self.image_size} pixels,"
            raise RoadmapError(
                f"timm's {self.timm_model}{made} does not take images of {size} pixels at stem stride "
                f"{self.stem_stride}: {why[:200]}"
            ) from None


def reference_design(
    name: str, num_classes: int, image_size: int, stem_stride: int = NATIVE_STEM_STRIDE, stochastic_depth: float = 0.0
) -> TimmModel:
    """timm's model ``name`` for images of ``image_size`` pixels with this many classes, tried out without memory.

    Imports timm: from a process that is to stay light, call it with `in_clean_process`. Raises `RoadmapError`, with
    the nearest name where timm has none such, and where it cannot be built for, or take, such images.
    """
    design = TimmModel(name, num_classes, image_size, stem_stride, stochastic_depth=stochastic_depth)
    design._try(image_size)
    return design


class Facts(NamedTuple):
    """What is known of one of timm's models: the options that its class ``accepted``, the side of its patches in pixels
    (None: it does not begin with patches that can be chosen), the names of its ``classifiers`` and whether it
    normalises over the batch."""

    accepted: frozenset[str]
    patch: int | None
    classifiers: tuple[str, ...]
    batch_norm: bool


@lru_cache
def facts_of(name: str) -> Facts:
    """Look at timm's model ``name`` as timm has it, without memory. Raises `RoadmapError` where there is none such."""
    import timm
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    if not timm.is_model(name):
        raise RoadmapError(f"timm has no model '{name}'{nearest(name, timm.list_models())}")
    with torch.random.fork_rng(devices=[]), torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = _create(name)
        accepted = _options_of(type(network))
        patch = _patch_of(network) if "patch_size" in accepted else None
        try:
            _create(name, **{} if patch is None else {"patch_size": patch})
        except TypeError:  # of some models timm gives it itself, and takes no other
            patch = None
    classifiers = network.pretrained_cfg["classifier"]
    return Facts(
        accepted=accepted,
        patch=patch,
        classifiers=(classifiers,) if isinstance(classifiers, str) else tuple(classifiers),
        batch_norm=any(isinstance(module, _BatchNorm) for module in network.modules()),
    )


def _create(name: str, **options: Any) -> Any:
    import timm

    return timm.create_model(name, pretrained=False, **options)


def _options_of(kind: type) -> frozenset[str]:
    """The arguments that a class takes, those that it hands on to the class it is made from included."""
    names: set[str] = set()
    for each in kind.__mro__:
        if "__init__" in vars(each):
            parameters = inspect.signature(each.__init__).parameters  # type: ignore[misc]
            names |= parameters.keys()
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
                break
    return frozenset(names)


def _patch_of(network: nn.Module) -> int | None:
    """The side of the patches that a model's first convolution cuts the image into, if it does that."""
    try:
        first = network.get_submodule(network.pretrained_cfg["first_conv"])  # type: ignore[arg-type, index]
        kernel, stride = first.kernel_size, first.stride
    except (AttributeError, TypeError, KeyError):
        return None
    return stride[0] if kernel == stride else None  # type: ignore[return-value, index]
