"""A network as timm knows its backbones: intermediate features, pruning, another classifier, groups of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from timm.layers import ClassifierHead
from timm.models import checkpoint_seq
from torch import Tensor, nn

from roadmap.checks import RoadmapError, check_choice, check_int, plain
from roadmap.network.design import Design

POOLINGS = ("avg", "max", "avgmax", "")


class Stage(nn.Module):
    """The network at one resolution: a ``downsample`` layer, which may be empty, and ``blocks`` behind it."""

    def __init__(self, downsample: nn.Module, blocks: nn.Module) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = blocks
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint_seq(self.blocks, x)
        return self.blocks(x)


class Backbone(nn.Module):
    """A network of ``stem``, ``stages``, ``norm_pre`` and ``head`` with the methods of timm's backbones.

    ``feature_info`` has for each stage its channels, its reduction of the image and its module's name.
    """

    if TYPE_CHECKING:  # what a network has set; TorchScript would read these and not know them
        design: Design
        stem: nn.Module
        stages: nn.Sequential
        norm_pre: nn.Module
        head: nn.Module
        num_classes: int
        num_features: int
        head_hidden_size: int
        feature_info: list[dict[str, Any]]

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> the last stage's (N, C, H', W')."""
        return self.norm_pre(self.stages(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last stage's (N, C, H', W') -> logits (N, num_classes), or with ``pre_logits`` the classifier's input."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """timm's interface: the outputs of the stages named by ``indices``, and the final features with them."""
        check_choice("output_fmt", output_fmt, ["NCHW"])
        taken = taken_stages("indices", indices, len(self.stages))
        last = max(taken)
        intermediates = []
        x = self.stem(x)
        for index, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(x)
            final = index == len(self.stages) - 1
            if index in taken:
                intermediates.append(self.norm_pre(x) if norm and final else x)
        if intermediates_only:
            return intermediates
        return (self.norm_pre(x) if final else x), intermediates

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """timm's interface: drop the stages behind the last of ``indices``, and the head."""
        taken = taken_stages("indices", indices, len(self.stages))
        last = max(taken)
        shortened = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if prune_norm or shortened:
            self.norm_pre = nn.Identity()
        if shortened:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if shortened or prune_head:
            self.head = ClassifierHead(self.num_features, 0, pool_type="")
            self.num_classes = 0
        return taken

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.head.fc  # type: ignore[return-value]

    @torch.jit.ignore
    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier of ``num_classes`` outputs; 0 leaves it out. ``global_pool`` "" leaves out the pooling."""
        check_choice("global_pool", "avg" if global_pool is None else global_pool, POOLINGS)
        self.design = self.design.replace(num_classes=num_classes)
        self.num_classes = num_classes
        like = next(self.parameters())
        self.head.reset(num_classes, global_pool)  # type: ignore[operator]
        self.head.to(device=like.device, dtype=like.dtype)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory: keep only each block's input for the backward pass."""
        for stage in self.stages:
            assert isinstance(stage, Stage)
            stage.grad_checkpointing = enable

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """timm's interface: parameter groups in order of depth, for layer-wise learning rates.

        Three consecutive blocks of a stage are a group, as where the paper decays learning rates (Appendix A.2).
        """
        deepest = max(self.design.blocks)
        blocks = [(r"^stages\.(\d+)\.downsample", (0,))]
        for first in range(0, deepest, 3):
            three = "|".join(str(first + n) for n in range(3))
            blocks.append((rf"^stages\.(\d+)\.blocks\.(?:{three})\.", (first // 3,)))
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else [*blocks, (r"^norm_pre", (99999,))]}


def taken_stages(name: str, indices: Any, count: int) -> list[int]:
    """Numbers of the stages that timm's ``indices`` name among ``count``: None all of them, n the last n, else these,
    counted from 0, or from the end as -1, -2, ... Raises `RoadmapError` where there are none such."""
    indices = count if indices is None else plain(indices)
    if not isinstance(indices, (list, tuple)):
        return list(range(count - check_int(f"{name}, as a number of stages,", indices, 1, count), count))
    taken = [check_int(name, index, -count, count - 1) % count for index in indices]
    if not taken or len(set(taken)) < len(taken):
        raise RoadmapError(f"{name} is {indices}, but must name one stage or more, each once")
    return taken
