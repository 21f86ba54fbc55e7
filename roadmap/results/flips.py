"""Which test images a step gains and loses: as a table, and as pictures in a notebook and on a report's page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from roadmap.checks import RoadmapError, check_known
from roadmap.results.schema import FLIPS, typed
from roadmap.tasks import task_named

if TYPE_CHECKING:
    from roadmap.data.sources import ImageData

#: Number of gained, and of lost, images that are shown for a step.
SHOWN = 6
#: Height and width of a shown image in pixels.
THUMBNAIL = 48


class Flips(pd.DataFrame):  # type: ignore[misc]  # pandas has no types
    """The test images that a step gains and loses, the surest gains first and the surest losses last; columns:
    `roadmap.results.schema.FLIPS`, docs/tables.md. In a notebook the first and the last are shown as pictures.

    ``title`` says what is compared; ``data`` are the images, or None, and ``remark`` then says why. Any part of the
    table is a plain DataFrame.
    """

    _metadata = ["title", "data", "remark"]  # noqa: RUF012  (as pandas wants it)
    title: str
    data: ImageData | None
    remark: str

    def __init__(self, table: Any, title: str = "", data: ImageData | None = None, remark: str = "") -> None:
        super().__init__(table)
        self.title, self.data, self.remark = title, data, remark

    @property
    def _constructor(self) -> Any:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        return flips_html(self)


def flips(
    before: np.ndarray, after: np.ndarray, names: Sequence[str] | None = None, labels: Sequence[str] | None = None
) -> pd.DataFrame:
    """One row a test image that is gained or lost, from which of the N images the runs of two networks get right.

    ``before`` and ``after``: bool (seeds, N), whose numbers of seeds may differ; ``names`` and ``labels``: of all N
    images. An image is gained where a larger share of the seeds gets it right after than before, and lost where a
    smaller one does. Sorted by the change, largest first, then in the images' order.
    """
    right, seeds = (before.sum(0), after.sum(0)), (len(before), len(after))
    change = right[1] * seeds[0] - right[0] * seeds[1]  # whole numbers: equal changes are equal
    order = np.argsort(-change, kind="stable")
    order = order[change[order] != 0]
    table = {
        "image": order,
        "name": None if names is None else [names[image] for image in order],
        "label": None if labels is None else [labels[image] for image in order],
        "before": right[0][order] / seeds[0],
        "after": right[1][order] / seeds[1],
        "change": change[order] / (seeds[0] * seeds[1]),
    }
    return typed(pd.DataFrame(table), FLIPS)


def reopened(opened: Mapping[str, Any], identity: str, task: str) -> tuple[ImageData | None, str]:
    """The data set of a run for a task, as it is recorded to have been ``opened``, or None and why it cannot be shown.

    It must be the one that has this `ImageData.identity`. Nothing is downloaded.
    """
    from roadmap.planning.spec import OPENED

    try:
        check_known("setting of the data", opened, OPENED)
        data = task_named(task).open_data(**{**opened, "download": False})
    except RoadmapError as error:
        return None, str(error)
    if data.identity != identity:
        return None, f"{opened.get('directory') or data.name} no longer holds the images that the runs were tested on"
    return data, ""


def together(network: str, kept: Mapping[tuple[str, int], tuple[np.ndarray, str] | None]) -> tuple[np.ndarray, str]:
    """Which of the N test images the done runs of a network get right, bool (seeds, N), and their fingerprint.

    ``kept``: `roadmap.results.study.Study.correct_by_run` of it. Raises `RoadmapError` where no run is done, one kept
    no record of its images, or they were tested on different images.
    """
    if not kept:
        raise RoadmapError(f"no run of '{network}' is done: start the study again to train it")
    known = [run for run in kept.values() if run]
    if len(known) < len(kept):
        seeds = ", ".join(str(seed) for (_, seed), run in kept.items() if not run)
        raise RoadmapError(
            f"the runs of '{network}' with seed {seeds} have no record of single test images, since an earlier version "
            "made them: remove them with roadmap rm and start the study again"
        )
    fingerprints = {fingerprint for _, fingerprint in known}
    if len(fingerprints) > 1:
        raise RoadmapError(f"the runs of '{network}' were tested on different images and cannot be compared")
    return np.stack([correct for correct, _ in known]), fingerprints.pop()


def told_of(data: ImageData) -> tuple[list[str] | None, list[str]]:
    """Names, None where they have none, and classes of all test images."""
    names = data.test_names
    labels = [data.class_names[label] for label in data.test.labels]
    return None if names is None else [bytes(name).decode("utf-8", "replace") for name in names], labels


def thumbnail(data: ImageData, image: int) -> str:
    """A test image as the network sees it, as a PNG in a data URI, `THUMBNAIL` pixels high and wide.

    Raises `RoadmapError` where it cannot be read.
    """
    from roadmap.data.images import fit

    picture = fit(data.test.picture(image), data.image_size, data.crop_share if not data.in_memory else 1.0)
    if data.image_size != THUMBNAIL:
        enlarged = data.image_size < THUMBNAIL
        picture = picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.NEAREST if enlarged else None)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def flips_html(table: Flips, shown: int = SHOWN) -> str:
    """What a step gains and loses as HTML, escaped: how many images, and the first ``shown`` of either with their
    pictures, or a remark where the images are not at hand."""
    gained, lost = table[table["change"] > 0], table[table["change"] < 0].iloc[::-1]
    remark = f"<p>The images are not shown: {escape(table.remark)}</p>" if table.data is None else ""
    sides = "".join(
        f"<p>{len(images)} {'image' if len(images) == 1 else 'images'} {what}"
        f"{f', the first {shown} of them' if len(images) > shown else ''}</p>"
        f"<div style='display:flex;flex-wrap:wrap;gap:.5em'>"
        f"{''.join(_figure(image, table.data) for image in images.head(shown).to_dict('records'))}</div>"
        for what, images in (("gained", gained), ("lost", lost))
    )
    return f"<div class='flips'><p><b>{escape(table.title)}</b></p>{remark}{sides}</div>"


def _figure(image: Mapping[Any, Any], data: ImageData | None) -> str:
    place = f"image {image['image']}"
    name = escape(place if pd.isna(image["name"]) else f"{image['name']} ({place})", quote=True)
    shares = f"{100 * image['before']:.0f} → {100 * image['after']:.0f} %"
    picture = name
    if data is not None:
        try:
            picture = (
                f"<img src='{thumbnail(data, image['image'])}' alt='{name}' title='{name}' "
                f"width='{THUMBNAIL}' height='{THUMBNAIL}'>"
            )
        except RoadmapError:
            picture = f"{name} cannot be read"
    label = "" if pd.isna(image["label"]) else f"{escape(str(image['label']))}<br>"
    return f"<figure style='margin:0;font-size:85%'>{picture}<figcaption>{label}{shares}</figcaption></figure>"
