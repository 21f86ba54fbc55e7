"""The report of a study as one file of HTML: no network, no second file, opened from the disk."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from roadmap.checks import RoadmapError, cause
from roadmap.explaining import words
from roadmap.explaining.diagram import draw_blocks
from roadmap.explaining.spatial import draw_fields, draw_operations, field_of, half_side
from roadmap.explaining.text import layer_by_layer
from roadmap.files import write_text
from roadmap.formatting import label
from roadmap.phases import phase
from roadmap.plotting.style import MARKS, Drawn
from roadmap.reporting.content import Content, content_of
from roadmap.reporting.figures import Picture, Target, clean, font_faces, picture
from roadmap.reporting.sections import SEEN, Section
from roadmap.results.drawings import figures
from roadmap.results.figures import Figures
from roadmap.results.study import Study, load_study

#: The name of a report in its study's folder.
REPORT = "report.html"


def report(
    study: Figures | str | Path,
    out: str | Path | None = None,
    diagrams: bool = True,
) -> Path:
    """Write the report of a study, of that in a folder, or of a table of runs as one page of HTML; returns its path.

    It goes to ``out``, by default ``report.html`` in the study's folder (of a table: named after it, into the current
    folder), in one atomic write. ``diagrams``: draw the blocks of every step, list the layers that differ and tell
    receptive fields, theoretical and effective, which takes most of the time. Raises `RoadmapError` where the study
    cannot be read or the page cannot be written.
    """
    study = study if isinstance(study, Figures) else load_study(study)
    own = study.path / REPORT if isinstance(study, Study) else Path(f"{study.name}-{REPORT}")
    path = Path(out) if out is not None else own
    if path.is_dir():
        raise RoadmapError(f"{path} is a folder: name the file that the report is to be")
    if not path.parent.is_dir():
        raise RoadmapError(f"{path} cannot be written: there is no folder {path.parent}")
    text = page_of(study, diagrams)
    try:
        write_text(path, text)
    except OSError as error:
        raise RoadmapError(f"{path} cannot be written: {cause(error)}") from None
    return path


def page_of(study: Figures, diagrams: bool = True) -> str:
    """The report of a study as HTML, see `report`. Raises `RoadmapError` where its runs cannot be summarised."""
    content = content_of(study, diagrams)
    pictures, reading = _said_once(_pictures(study, content))
    style, script = (_part(name) for name in ("page.css", "page.js"))
    drawings = [drawing for one in pictures.values() for drawing in (one.wide, one.narrow)]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template().render(
        content=content,
        pictures=pictures,
        reading=reading,
        more=[name for name in pictures if name in (*figures(), "operations", "fields")],
        words=words,
        seen=SEEN,
        layer_by_layer=layer_by_layer,
        marks=MARKS,
        style=Markup(f"{font_faces(drawings)}\n{style}"),  # noqa: S704
        script=Markup(script),  # noqa: S704
        digest=digest,
    )


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finalize
    )
    environment.filters["csv_uri"] = lambda text: f"data:text/csv;base64,{base64.b64encode(text.encode()).decode()}"
    environment.filters["drawing"] = Markup
    environment.filters["clean"] = clean
    return environment.from_string(_part("page.html"))


def _finalize(value: Any) -> Any:
    """User-given text keeps no character that would change what stands around it."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


# --- figures


def _pictures(study: Figures, content: Content) -> Mapping[str, Picture]:
    """All figures of the page, by name; those of sections begin with their id."""
    wanted: dict[str, Callable[..., Drawn]] = {}
    if len(study.effects):
        wanted |= {name: partial(study.figure, name) for name in study.figures[1:]}
    if isinstance(study, Study):
        if study.steps["score_mean"].notna().sum() > 1:
            wanted["pareto"] = study.pareto
        if len(study.curves) and not any(section.curves for section in content.sections):
            wanted["curves"] = study.curves
    draw = partial(study.figure, study.figures[0], title="")
    pictures = {}
    if len(study.effects) or study.figures[0] == "trajectory":
        alt = f"{content.heading}: {content.headline}. Every row leads to its step; the tables have all numbers."
        pictures["main"] = picture(draw, "main", alt, _targets(content.sections))
    pictures |= {name: picture(method, name, study.worded(figures()[name].alt)) for name, method in wanted.items()}
    built = {section.name: section.explanation.after for section in content.sections if section.explanation}
    if len(built) > 1 and study.question.cumulative:
        pictures["operations"] = picture(partial(draw_operations, built), "operations", _OPERATIONS)
        if fields := _fields(content.sections):
            pictures["fields"] = picture(partial(draw_fields, fields), "fields", _FIELDS)
    for section in content.sections:
        with phase(f"drawing {section.name}"):
            pictures |= _section_pictures(study, section)
    return pictures


def _fields(sections: Sequence[Section]) -> dict[str, np.ndarray]:
    """Effective receptive fields of the first and the last network and of those that see least and most, by name; none
    where a network has none, and where all see the same."""
    explained = {section.step: section.explanation for section in sections if section.explanation}
    try:
        fields = {name: field_of(one.after, one.image_size) for name, one in explained.items()}
    except RoadmapError:
        return {}
    halves = {name: half_side(field) for name, field in fields.items()}
    least, most = (choose(halves, key=halves.__getitem__) for choose in (min, max))
    chosen = {next(iter(fields)), least, most, next(reversed(fields))}
    return {name: field for name, field in fields.items() if name in chosen} if halves[least] < halves[most] else {}


_OPERATIONS = "Operations of every network, as it is explained, by what they are for."
_FIELDS = "Effective receptive fields of a few networks: how much each pixel changes the middle position."


def _section_pictures(study: Figures, section: Section) -> dict[str, Picture]:
    pictures = {}
    explanation = section.explanation
    if explanation is not None:
        before = f", before ({label(explanation.before.name)}) and after" if explanation.before else ""
        pictures[f"{section.id}-blocks"] = picture(
            partial(draw_blocks, explanation, title=""),
            f"{section.id}-blocks",
            f"Feature maps of {section.name}{before}.",
        )
    if section.curves and isinstance(study, Study):
        pictures[f"{section.id}-curves"] = picture(
            partial(study.curves, steps=section.curves, title=""),
            f"{section.id}-curves",
            f"Learning curves of {', '.join(map(label, section.curves))}: "
            f"{study.metric_short} on the test images by epoch.",
            widths=("column", "column"),
        )
    return pictures


def _said_once(pictures: Mapping[str, Picture]) -> tuple[dict[str, Picture], list[str]]:
    """(the pictures, with no sentence of a caption that stands before them; the sentences that several of the steps'
    figures would have, diagrams first)."""
    sentences = {name: re.split(r"(?<=[.]) ", one.caption) for name, one in pictures.items()}
    of_steps = sorted((name for name in pictures if name.startswith("step-")), key=lambda name: name.endswith("curves"))
    counts = Counter(sentence for name in of_steps for sentence in sentences[name])
    shared = [sentence for sentence, count in counts.items() if count > 1]
    said, found = {*shared}, {}
    for name, one in pictures.items():
        found[name] = replace(one, caption=" ".join(text for text in sentences[name] if text not in said))
        said.update(sentences[name])
    return found, shared


def _targets(sections: Sequence[Section]) -> Callable[[Drawn], Sequence[Target]]:
    """What of a figure leads to which section: its rows, in their order."""
    by_name = {section.step: section for section in sections}

    def targets(figure: Drawn) -> list[Target]:
        found = [(by_name[row.name], row.box) for row in figure.rows if row.name in by_name]
        return [Target(f"#{section.id}", (section.name, *section.numbers), box) for section, box in found]

    return targets
