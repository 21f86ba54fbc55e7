"""A study from its YAML file and from keywords, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from roadmap.checks import check_known
from roadmap.files import read_yaml
from roadmap.planning.spec import StudySpec, study_settings
from roadmap.questions import question_settings
from roadmap.recipes.recipe import SETTINGS


def load_spec(path: Path | None = None, **overrides: Any) -> StudySpec:
    """The study in a YAML file, or the default one, with some settings replaced.

    Raises `RoadmapError` for a file that cannot be read and for a setting that does not exist.
    """
    names = {one.name: name for name, one in study_settings().items()}
    known = {one.name: one for one in study_settings().values()} | question_settings() | SETTINGS
    settings = read_yaml(path) if path else {}
    check_known("setting of a study", settings, known)
    settings = {name: known[name].from_yaml(value) for name, value in settings.items()}
    settings |= {name.rstrip("_"): value for name, value in overrides.items()}
    check_known("setting of a study", settings, known)
    of_recipe, of_question = (
        {name: value for name, value in settings.items() if name in own} for own in (SETTINGS, question_settings())
    )
    given = {names[name]: value for name, value in settings.items() if name in names}
    spec = StudySpec(**given, recipe_settings=of_recipe, question_settings=of_question)
    if spec.start_from is not None and not starts_from_study(spec):
        spec.check_one_network()
    return spec


def starts_from_study(spec: StudySpec) -> bool:
    """Whether each network is to start from its own run in a study, whose folder is named."""
    return spec.start_from is not None and Path(spec.start_from).is_dir()


def settings_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, of study and recipe, that are not as by default, of a `StudySpec` as plain values or of what a
    study.json keeps of it. `load_spec` makes an equal one of them."""
    kept = {}
    for name, one in (study_settings() | question_settings()).items():
        value, default = asked.get(name), one.default
        usual = list(default) if isinstance(default, tuple) else default
        if value not in (None, (), [], {}, default, usual):
            kept[one.name] = value
    for part in ("question_settings", "recipe_settings"):
        kept |= dict(asked.get(part) or {})
    return kept


def yaml_text(asked: Mapping[str, Any]) -> str:
    """The YAML file of a study whose study.json says that this was asked: all settings that are not as by default."""
    return yaml.safe_dump(settings_of(asked), sort_keys=False, allow_unicode=True)
