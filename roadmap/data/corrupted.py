"""ImageNet-C's corruptions of test images, made on the fly: Hendrycks and Dietterich, "Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations", ICLR 2019 (arXiv 1903.12261)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from roadmap.checks import RoadmapError
from roadmap.data.images import fit
from roadmap.imports import is_installed

if TYPE_CHECKING:
    from roadmap.data.sources import ImageData

#: The kinds of its test set, by the family that the paper puts them into.
FAMILIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
KINDS = tuple(kind for kinds in FAMILIES.values() for kind in kinds)
STRENGTHS = (1, 2, 3, 4, 5)
#: These draw from a generator of their own.
SEEDED = ("impulse_noise", "glass_blur")
#: Sides in pixels for which the package has corruptions.
SMALLEST = 32


@dataclass(frozen=True)
class Corruption:
    """One corruption of images of ``size`` pixels, which ``share`` of their shorter side are cut to before."""

    kind: str
    strength: int
    size: int
    share: float

    def __call__(self, picture: Image.Image, index: int) -> Image.Image:
        """A test image as the network is to see it, by its place among them, which alone decides what is random."""
        from imagecorruptions import corrupt

        pixels = np.asarray(fit(picture, self.size, self.share))
        before = np.random.get_state()
        try:
            np.random.seed([index, self.strength, KINDS.index(self.kind)])
            seed = {"seed": int(np.random.randint(2**31))} if self.kind in SEEDED else {}
            return Image.fromarray(corrupt(pixels, self.strength, self.kind, **seed))
        finally:
            np.random.set_state(before)


def corrupted(data: ImageData, kind: str, strength: int) -> ImageData:
    """The data set with its test images cut as its own, and then corrupted by one of `KINDS` at one of `STRENGTHS`.

    Raises `RoadmapError` where the package that corrupts is not installed, and for images below 32 px.
    """
    from roadmap.data.sources import Split

    if not is_installed("imagecorruptions"):
        raise RoadmapError(
            "corrupting images needs the package imagecorruptions-imaug: pip install 'roadmap-ablation[robustness]'"
        )
    if data.image_size < SMALLEST:
        raise RoadmapError(f"corruptions are defined for images of {SMALLEST} px and more, not of {data.image_size} px")
    change = Corruption(kind, strength, data.image_size, 1.0 if data.in_memory else data.crop_share)
    return dataclasses.replace(
        data,
        name=f"{data.name}, {kind} {strength}",
        train=Split(np.zeros(0, np.int64)),  # not decoded: its test images are read one by one, and in workers
        test=dataclasses.replace(data.test, change=change),
        crop_share=1.0,
    )
