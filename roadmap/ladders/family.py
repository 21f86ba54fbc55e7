"""The published networks on either side of the roadmap, each as one `Design`. Needs neither torch nor timm."""

from __future__ import annotations

from roadmap.checks import check_known
from roadmap.network.design import CONVNEXT, Design

#: Name -> network, as timm names it, with 1000 classes and without stochastic depth.
FAMILY: dict[str, Design] = {
    # "A ConvNet for the 2020s", §3, Table 1, with the layer scale of the released models
    "convnext_tiny": CONVNEXT.replace(blocks=(3, 3, 9, 3), widths=(96, 192, 384, 768), layer_scale=1e-6),
    "convnext_small": CONVNEXT.replace(blocks=(3, 3, 27, 3), widths=(96, 192, 384, 768), layer_scale=1e-6),
    "convnext_base": CONVNEXT.replace(blocks=(3, 3, 27, 3), widths=(128, 256, 512, 1024), layer_scale=1e-6),
    "convnext_large": CONVNEXT.replace(blocks=(3, 3, 27, 3), widths=(192, 384, 768, 1536), layer_scale=1e-6),
    "convnext_xlarge": CONVNEXT.replace(blocks=(3, 3, 27, 3), widths=(256, 512, 1024, 2048), layer_scale=1e-6),
    # §3.3, Table 2; the released code has 16x16 patches and no layer scale unless asked
    "convnext_isotropic_small": CONVNEXT.replace(blocks=(18,), widths=(384,), stem_stride=16),
    "convnext_isotropic_base": CONVNEXT.replace(blocks=(18,), widths=(768,), stem_stride=16),
    "convnext_isotropic_large": CONVNEXT.replace(blocks=(36,), widths=(1024,), stem_stride=16),
    # arXiv 1512.03385, Table 1; 200 layers: arXiv 1603.05027; stride on the 3x3 convolution
    "resnet50": Design(blocks=(3, 4, 6, 3)),
    "resnet101": Design(blocks=(3, 4, 23, 3)),
    "resnet152": Design(blocks=(3, 8, 36, 3)),
    "resnet200": Design(blocks=(3, 24, 36, 3)),
    # arXiv 1611.05431, Table 1: 32 groups of 4 channels in the first stage
    "resnext50_32x4d": Design(groups=32, expansion=2, widths=(128, 256, 512, 1024), stem_width=64),
}


def design(name: str) -> Design:
    """The network of that name. Raises `RoadmapError` with the nearest name where there is none."""
    check_known("network", [name], FAMILY)
    return FAMILY[name]
