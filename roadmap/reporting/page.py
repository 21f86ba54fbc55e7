"""The report of a study as one file of HTML: no network, no second file, opened from the disk."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from roadmap.analysis.drawings import figures
from roadmap.analysis.figures import Figures
from roadmap.analysis.study import Study, load_study
from roadmap.checks import RoadmapError, cause
from roadmap.explaining import words
from roadmap.explaining.diagram import draw_blocks
from roadmap.explaining.spatial import draw_operations
from roadmap.explaining.text import layer_by_layer
from roadmap.files import write_text
from roadmap.formatting import label
from roadmap.phases import phase
from roadmap.plotting.style import MARKS, Drawn
from roadmap.reporting.content import Content, content_of
from roadmap.reporting.figures import Picture, Target, clean, font_faces, picture
from roadmap.reporting.sections import Section

#: The name of a report in its study's folder.
REPORT = "report.html"


def report(
    study: Figures | str | Path,
    out: str | Path | None = None,
    diagrams: bool = True,
) -> Path:
    """Write the report of a study, of that in a folder, or of a table of runs as one page of HTML; returns its path.

    It goes to ``out``, by default ``report.html`` in the study's folder (of a table: named after it, into the
    current folder), in one atomic write. ``diagrams``: draw the blocks of every step, list the layers that differ and
    tell receptive fields, which takes most of the time. Raises `RoadmapError` where the study cannot be read or the
    page cannot be written.
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
    pictures = _pictures(study, content)
    style, script = (_part(name) for name in ("page.css", "page.js"))
    drawings = [drawing for one in pictures.values() for drawing in (one.wide, one.narrow)]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template().render(
        content=content,
        pictures=pictures,
        more=[name for name in pictures if name in (*figures(), "operations")],
        words=words,
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
        if study.steps["top1_mean"].notna().sum() > 1:
            wanted["pareto"] = study.pareto
        if len(study.curves) and not any(section.curves for section in content.sections):
            wanted["curves"] = study.curves
    draw = partial(study.figure, study.figures[0], title="")
    pictures = {}
    if len(study.effects) or study.figures[0] == "trajectory":
        alt = f"{content.heading}: {content.headline}. Every row leads to its step; the tables have all numbers."
        pictures["main"] = picture(draw, "main", alt, _targets(content.sections))
    pictures |= {name: picture(method, name, figures()[name].alt) for name, method in wanted.items()}
    built = {section.name: section.explanation.after for section in content.sections if section.explanation}
    if len(built) > 1 and study.question.cumulative:
        pictures["operations"] = picture(partial(draw_operations, built), "operations", _OPERATIONS)
    for section in content.sections:
        with phase(f"drawing {section.name}"):
            pictures |= _section_pictures(study, section)
    return pictures


_OPERATIONS = "Operations of every network, as it is explained, by what they are for."


def _section_pictures(study: Figures, section: Section) -> dict[str, Picture]:
    pictures = {}
    explanation = section.explanation
    if explanation is not None:
        before = f", before ({label(explanation.before.name)}) and after" if explanation.before else ""
        pictures[f"{section.id}-blocks"] = picture(
            partial(draw_blocks, explanation),
            f"{section.id}-blocks",
            f"Feature maps of {section.name}{before}.",
        )
    if section.curves and isinstance(study, Study):
        pictures[f"{section.id}-curves"] = picture(
            partial(study.curves, steps=section.curves, title=""),
            f"{section.id}-curves",
            f"Learning curves of {', '.join(map(label, section.curves))}: top-1 on the test images by epoch.",
            widths=("column", "column"),
        )
    return pictures


def _targets(sections: Sequence[Section]) -> Callable[[Drawn], Sequence[Target]]:
    """What of a figure leads to which section: its rows, in their order."""
    by_name = {section.step: section for section in sections}

    def targets(figure: Drawn) -> list[Target]:
        found = [(by_name[row.name], row.box) for row in figure.rows if row.name in by_name]
        return [Target(f"#{section.id}", (section.name, *section.numbers), box) for section, box in found]

    return targets
