"""The report of a study as one file of HTML: no network, no second file, opened from the disk."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from roadmap.analysis.effects_figure import ranked_effects
from roadmap.analysis.study import Study, load_study
from roadmap.checks import RoadmapError, cause
from roadmap.explaining import words
from roadmap.explaining.diagram import draw_blocks
from roadmap.files import write_text
from roadmap.look import label
from roadmap.reporting.content import Content, content_of
from roadmap.reporting.figures import Picture, Target, cell_box, clean, font_faces, picture, row_box, tick_box
from roadmap.reporting.sections import Section

#: The name of a report in its study's folder.
REPORT = "report.html"
#: Half the width of what leads to a level of a sweep, as a share of the figure.
_LEVEL = 0.03


def report(
    study: Study | str | Path, output: str | Path | None = None, say: Callable[[str], None] = lambda text: None
) -> Path:
    """Write the report of a study, or of that in a folder, as one page of HTML; returns its path.

    It goes to ``output``, by default ``report.html`` in the study's folder, whole or not at all. ``say`` is told of
    every step when it is taken up. Raises `RoadmapError` where the study cannot be read or the page not be written.
    """
    study = study if isinstance(study, Study) else load_study(study)
    path = Path(output) if output is not None else study.path / REPORT
    if path.is_dir():
        raise RoadmapError(f"{path} is a folder: name the file that the report is to be")
    if not path.parent.is_dir():
        raise RoadmapError(f"{path} cannot be written: there is no folder {path.parent}")
    text = page_of(study, say)
    try:
        write_text(path, text)
    except OSError as error:
        raise RoadmapError(f"{path} cannot be written: {cause(error)}") from None
    return path


def page_of(study: Study, say: Callable[[str], None] = lambda text: None) -> str:
    """The report of a study as HTML. Raises `RoadmapError` where its runs cannot be summarised."""
    content = content_of(study, say)
    pictures = _pictures(study, content, say)
    style, script = (_part(name) for name in ("page.css", "page.js"))
    drawings = [drawing for one in pictures.values() for drawing in (one.wide, one.narrow)]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template().render(
        content=content,
        pictures=pictures,
        words=words,
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
    environment.filters["label"] = label
    return environment.from_string(_part("page.html"))


def _finalize(value: Any) -> Any:
    """User-given text keeps no character that would change what stands around it."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


# --- figures


def _pictures(study: Study, content: Content, say: Callable[[str], None]) -> Mapping[str, Picture]:
    """All figures of the page, by name; those of sections begin with their id."""
    draw: Callable[..., Figure] = getattr(study, study.figures[0])
    targets = _targets(study, content.sections)
    pictures = {"main": picture(lambda width: draw(width=width), "main", _main_alt(study, content), targets)}
    if "interactions" in study.figures:
        pictures["interactions"] = picture(
            lambda width: study.interactions(width=width), "interactions",
            "Main effects and interactions of two steps as a map; the table of effects has the numbers.",
        )  # fmt: skip
    if study.steps["top1_mean"].notna().sum() > 1:
        pictures["pareto"] = picture(
            lambda width: study.pareto(width=width), "pareto",
            "Mean top-1 of every network against its cost, with the Pareto front; the table of networks has both.",
        )  # fmt: skip
    if len(study.curves):
        pictures["curves"] = picture(
            lambda width: study.curves(width=width), "curves",
            "Learning curves: top-1 on the test images by epoch; the table of runs has their ends.",
        )  # fmt: skip
    for section in content.sections:
        say(f"drawing {section.name}")
        pictures |= _section_pictures(study, section)
    return pictures


def _main_alt(study: Study, content: Content) -> str:
    what = "mean top-1 and cost of every network" if study.question.cumulative else "what every step is worth"
    return f"{content.heading}: {what}. Every row leads to its section; the tables have all figures."


def _section_pictures(study: Study, section: Section) -> dict[str, Picture]:
    pictures = {}
    explanation = section.explanation
    if explanation is not None:
        pictures[f"{section.id}-blocks"] = picture(
            lambda width: draw_blocks(explanation, width=width), f"{section.id}-blocks",
            f"Block diagram of {section.name}" + (
                f", before ({label(explanation.before.name)}) and after; the layers that differ are listed below."
                if explanation.before else "."
            ),
        )  # fmt: skip
    if section.shown:
        pictures[f"{section.id}-curves"] = picture(
            lambda width: study.curves(steps=section.shown, width=width), f"{section.id}-curves",
            f"Learning curves of {', '.join(map(label, section.shown))}: top-1 on the test images by epoch.",
            widths=("column", "column"),
        )  # fmt: skip
    return pictures


def _targets(study: Study, sections: Sequence[Section]) -> Callable[[Figure], Sequence[Target]]:
    """What of the main figure leads to which section, found from the figure's axes."""
    by_name = {section.step: section for section in sections}

    def target(name: str, box: tuple[float, float, float, float]) -> list[Target]:
        section = by_name.get(name)
        return [Target(f"#{section.id}", (section.name, *section.numbers), box)] if section else []

    def targets(figure: Figure) -> list[Target]:
        axes = {one.get_label(): one for one in figure.axes}
        for name, rows in (("accuracy", _ladder_rows(study)), ("forest", _forest_rows(study, axes.get("forest")))):
            if name in axes:
                return [one for row, step in rows for one in target(step, row_box(figure, axes[name], row))]
        levels = [*map(list, study.described.get("levels", {}).values())]
        if "sweep" in axes:
            places = zip(levels[0], axes["sweep"].get_xticks(), strict=True)
            return [one for level, x in places for one in target(level, tick_box(figure, axes["sweep"], x, _LEVEL))]
        if "map" in axes:
            return [
                one
                for row, down in enumerate(levels[0])
                for column, across in enumerate(levels[1])
                for one in target(f"{down} & {across}", cell_box(figure, axes["map"], column, row))
            ]
        return []

    return targets


def _ladder_rows(study: Study) -> list[tuple[int, str]]:
    return list(enumerate(study.steps["step"]))


def _forest_rows(study: Study, axes: Any) -> list[tuple[int, str]]:
    """The rows of effects, which come first, by size unless they are levels; and those of references, the last ones."""
    if axes is None:
        return []
    if "levels" in study.figures:
        names = [*study.steps.loc[~study.steps["reference"], "step"]]
    else:
        names = [one.row["effect"] for one in ranked_effects(study.question, study.measured)]
    references = study.steps.loc[study.steps["reference"], "step"]
    first = len(axes.get_yticks()) - len(references)
    return [*enumerate(names), *enumerate(references, first)]
