"""ResNeXt-50 32x4d: arXiv 1611.05431, Table 1. Flags alone make it."""

from __future__ import annotations

from roadmap.ladders.steps import step

step(
    "resnext_32x4d",
    why="Split the 3x3 convolution into 32 groups and spend what that saves on twice the hidden width: more paths at "
    "the same cost.",
    section="arXiv 1611.05431, Table 1",
    groups=32,
    expansion=2,
    width_factor=2,
    stem_width=64,
)
