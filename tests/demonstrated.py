"""A small study to demonstrate, and what its networks say of an image by nothing but torch, Pillow and the records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from commands import call
from folders import make_image_folder
from PIL import Image

import roadmap
from roadmap.network.building import build_network, design_from_dict

#: Networks on either side of the head's LayerNorm, with a last feature map of 4 x 4 positions.
STUDY = (
    "run --only layer_norm --only separate_downsample --data folder --data-dir images --image-size 64 --stem-stride 2 "
    "--width 8 --depth 0.34 --seeds 2 --epochs 1 --batch-size 8 --jobs 1 --threads 1 --out study"
)


def make_study(place: Path) -> None:
    make_image_folder(place / "images", train=8, test=8, size=(90, 70))
    done = call(*STUDY.split(), cwd=place)
    assert done.code == 0, done.err


def bare(place: Path, network: str, path: Path, seed: int = 0):
    """(class, probability) of one image, the most probable first, by nothing but torch, Pillow and the run's record."""
    study = json.loads((place / "study" / "study.json").read_text())
    (run,) = (one for one in study["runs"] if (one["step"], one["seed"]) == (network, seed))
    record = json.loads((place / "results" / "store" / "runs" / run["signature"] / "run.json").read_text())
    weights = place / "results" / "store" / "runs" / run["signature"] / "weights.safetensors"
    module = build_network(design_from_dict(record["run"]["design"])).eval()
    roadmap.load_weights(module, weights)
    picture = Image.open(path).convert("RGB")
    scale = 64 / min(picture.size)
    picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.BICUBIC)
    left, top = ((side - 64) // 2 for side in picture.size)
    values = torch.tensor(np.asarray(picture.crop((left, top, left + 64, top + 64)))) / 255
    values = (values - torch.tensor(record["data"]["mean"])) / torch.tensor(record["data"]["std"])
    with torch.no_grad():
        shares = module(values.permute(2, 0, 1)[None].float()).softmax(1)[0]
    ranked = zip(record["data"]["classes"], shares.tolist(), strict=True)
    return sorted(ranked, key=lambda pair: -pair[1])
