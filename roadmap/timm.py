"""``import roadmap.timm`` makes every rung of both ladders one of timm's models.

    import timm
    import roadmap.timm

    backbone = timm.create_model("roadmap_large_kernel", features_only=True, out_indices=(1, 3))

The models of the ResNet-50 ladder are called ``roadmap_STEP``, those of the ResNet-200 ladder ``roadmap_r200_STEP``;
``timm.list_models("roadmap_*")`` lists them. ``timm.create_model(name, num_classes=..., in_chans=...,
features_only=..., out_indices=..., drop_rate=..., drop_path_rate=..., global_pool=..., output_stride=32)`` also takes
every flag of the `Design`. There are no pretrained weights, but ``roadmap export-weights`` writes those of a run as a
folder that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` opens.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from roadmap.checks import RoadmapError, check_choice
from roadmap.ladders.rungs import ladder, timm_names
from roadmap.network.backbone import taken_stages
from roadmap.network.design import Design
from roadmap.network.model import RoadmapNet

#: timm's words for flags of the design.
TIMM_WORDS = {"in_chans": "in_channels", "drop_path_rate": "stochastic_depth", "ls_init_value": "layer_scale"}

#: What timm's models divide the image by at most; all but the last need dilated convolutions, which no rung has.
OUTPUT_STRIDES = (8, 16, 32)

#: Where timm looks for the configurations of this module's models.
default_cfgs: dict[str, Any] = {}


def register(name: str, design: Design) -> None:
    """Register ``design`` as the timm model ``name``."""
    configuration = {
        "url": "",
        "num_classes": design.num_classes,
        "input_size": (design.in_channels, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "stem.conv",
        "classifier": "head.fc",
    }
    default_cfgs.update(generate_default_cfgs({name: configuration}))

    def entrypoint(pretrained: bool = False, **options: Any) -> RoadmapNet:
        return _create(name, design, pretrained, **options)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__doc__ = f"The network {name} of the modernization roadmap."
    register_model(entrypoint)


def _create(name: str, design: Design, pretrained: bool, **options: Any) -> RoadmapNet:
    if pretrained and not options.get("pretrained_cfg"):
        raise RoadmapError(f"there are no pretrained weights for {name}: say pretrained=False")
    output_stride = check_choice("output_stride", options.pop("output_stride", OUTPUT_STRIDES[-1]), OUTPUT_STRIDES)

    def model(global_pool: str = "avg", drop_rate: float = 0.0, **flags: Any) -> RoadmapNet:
        changes = {TIMM_WORDS.get(word, word): value for word, value in flags.items()}
        network = RoadmapNet(design.replace(**changes), global_pool=global_pool, drop_rate=drop_rate)
        reduction = network.feature_info[-1]["reduction"]
        if output_stride < min(reduction, OUTPUT_STRIDES[-1]):
            raise RoadmapError(
                f"output_stride is {output_stride}, but {name} divides the image by {reduction} and has no dilated "
                "convolutions: leave it out"
            )
        return network

    if options.get("features_only"):
        sized = design.replace(**{flag: options[flag] for flag in ("blocks", "widths") if flag in options})
        options["out_indices"] = tuple(taken_stages("out_indices", options.get("out_indices"), len(sized.blocks)))
    return build_model_with_cfg(model, name, pretrained, feature_cfg={"flatten_sequential": True}, **options)


for model, (regime, step) in timm_names().items():
    register(model, ladder(regime)[step].design)
