"""Families of networks: all that the program knows of a kind of network that it trains. Needs neither torch nor timm.

A family's settings are a frozen dataclass of plain values (`NetworkDesign`), one value a network. They are what a run's
record holds and its signature names. Code that trains, counts, tests or keeps a network asks the `Family` of its
settings and nothing else about its kind; another family is one more value in `FAMILIES`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeGuard, TypeVar

from typing_extensions import Self

from roadmap.network.design import LATER, Design
from roadmap.network.timm_model import TimmModel, facts_of

if TYPE_CHECKING:
    from torch import nn


class NetworkDesign(Protocol):
    """The settings of a network of any family: a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __hash__(self) -> int: ...

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier."""

    @property
    def in_channels(self) -> int:
        """Channels of the input image."""

    @property
    def stem_stride(self) -> int:
        """What the network, or the ladder that it is compared with, divides height and width by at first."""

    @property
    def layers(self) -> Any:
        """Plug-in layers, as `Design.layers` keeps them; none where a family has no places for them."""

    def replace(self, **changes: Any) -> Self:
        """These settings with some changed. Every family has ``num_classes`` and ``stochastic_depth`` among them."""

    def feature_sizes(self, size: int) -> object:
        """Raise `RoadmapError` where the network does not take images of ``size`` pixels."""


D = TypeVar("D", bound=NetworkDesign)


@dataclass(frozen=True)
class Family(Generic[D]):
    """A kind of network.

    source
        Who makes these networks, as in ``timm's resnet18``.
    settings
        The dataclass of their settings.
    key
        A setting that no family before it in `FAMILIES` has: plain values with it are this family's.
    build
        Settings -> network, freshly initialised: (N, in_channels, H, W) -> (N, num_classes). It has its settings as
        ``design``, and its ``num_classes``.
    normalises_over_batch
        Whether in training what an image comes to depends on the others of its batch.
    classifiers
        The names of the last linear layers.
    name
        What a network is called; None where the steps of a ladder name it.
    fewest_tensors
        What its state dict has at least, known before it is built.
    later
        Settings that came later, each with the value that means "as before it came".
    """

    source: str
    settings: type[D]
    key: str
    build: Callable[[D], nn.Module]
    normalises_over_batch: Callable[[D], bool]
    classifiers: Callable[[D], tuple[str, ...]]
    name: Callable[[D], str | None]
    fewest_tensors: Callable[[D], int] = lambda _: 0
    later: Mapping[str, Any] = field(default_factory=dict)

    def title(self, design: D) -> str:
        """What sentences call one of its networks: ``timm's resnet18``."""
        return f"{self.source}'s {self.name(design)}"


def _build(design: Design) -> nn.Module:
    from roadmap.network.model import RoadmapNet

    return RoadmapNet(design)


def _normalises_over_batch(design: Design) -> bool:
    """Asks the network where it has plug-in layers."""
    if not design.layers:
        return design.norm == "batch"
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    with torch.device("meta"):
        return any(isinstance(module, _BatchNorm) for module in _build(design).modules())


LADDER = Family(
    source="roadmap",
    settings=Design,
    key="blocks",
    build=_build,
    normalises_over_batch=_normalises_over_batch,
    classifiers=lambda _: ("head.fc",),
    name=lambda _: None,
    fewest_tensors=lambda design: sum(design.blocks),
    later=LATER,
)
TIMM = Family(
    source="timm",
    settings=TimmModel,
    key="timm_model",
    build=TimmModel.build,
    normalises_over_batch=lambda design: facts_of(design.timm_model).batch_norm,
    classifiers=lambda design: facts_of(design.timm_model).classifiers,
    name=lambda design: design.timm_model,
)
FAMILIES: tuple[Family[Any], ...] = (TIMM, LADDER)


def family_of(design: NetworkDesign) -> Family[Any]:
    """The family of some settings."""
    return next(family for family in FAMILIES if type(design) is family.settings)


def family_in(values: Mapping[str, Any]) -> Family[Any]:
    """The family of settings in plain values, as ``dataclasses.asdict`` gives them; the ladder's in doubt."""
    return next((family for family in FAMILIES if family.key in values), LADDER)


def digest(design: NetworkDesign) -> str:
    """16 hexadecimal digits that name some settings of a network."""
    return hashlib.sha256(json.dumps(dataclasses.asdict(design), sort_keys=True).encode()).hexdigest()[:16]


def on_ladder(design: NetworkDesign) -> TypeGuard[Design]:
    """Whether a network is made of the steps of a ladder, and its weights have the names that ours have."""
    return family_of(design) is LADDER
