"""Studies that grow by seeds until they are resolved, unequal seeds, and what a plan says its seeds can tell apart.

Runs are not trained: an engine that makes up their scores stands in, since all else is the program's own.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from datetime import datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from commands import call, once
from folders import make_image_folder
from scipy import stats

import roadmap.api
from roadmap import RoadmapError
from roadmap.planning.networks import plan_networks, seeds_of
from roadmap.planning.reading import load_spec, yaml_text
from roadmap.planning.seeds import parse_budget
from roadmap.planning.spec import StudySpec
from roadmap.results.comparison import compared
from roadmap.results.planned import assumed_deviation, plan_resolution
from roadmap.results.sequential import look
from roadmap.running import runner
from roadmap.running.display import PlainDisplay
from roadmap.running.preparing import prepare
from roadmap.running.task import Outcome
from roadmap.running.work import NUMBERS, _record
from roadmap.store.store import Store

STEPS = ("patchify_stem", "gelu", "layer_norm")
SMALL = {"width": 4, "image_size": 16, "epochs": 1, "batch_size": 4, "threads": 1, "device": "cpu", "data": "folder"}
DAY = datetime(2100, 1, 1, tzinfo=timezone.utc)


class Made:
    """An engine whose runs have the score ``value(step, seed)``; None: an error that another start may mend. Each takes
    ``hours``, one after the other. ``wait`` dies before the run number ``dies``."""

    def __init__(self, value, slots=2, dies=None, hours=0.1):
        self.value, self.slots, self.dies, self.hours = value, slots, dies, hours
        self.tasks, self.done = [], []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.tasks = []

    def submit(self, task):
        self.tasks.append(task)

    def wait(self, seconds):
        if not self.tasks:
            return []
        if len(self.done) == self.dies:
            raise KeyboardInterrupt
        task = self.tasks.pop(0)
        score = self.value(task.run.step, task.run.seed)
        start = DAY + timedelta(hours=self.hours * len(self.done))
        self.done.append((task.run.step, task.run.seed))
        numbers = dict.fromkeys(("top1", "top5", "last_top1", *NUMBERS))
        numbers |= {"status": "failed", "reason": "error: a cosmic ray", "retry": True}
        if score is not None:
            numbers |= {
                "status": "done",
                "reason": None,
                "retry": False,
                "top1": float(score),
                "top5": 100.0,
                "epochs": 1,
                "seconds": 5.0,
                "wall_seconds": 3600 * self.hours,
            }
        times = {"started": start.isoformat(), "finished": (start + timedelta(hours=self.hours)).isoformat()}
        names = (
            "device",
            "device_name",
            "devices",
            "threads",
            "platform",
            "python",
            "torch",
            "timm",
            "pytorch_lightning",
            "roadmap",
        )
        made_by = dict.fromkeys(names) | {"device": "cpu", "devices": 1, "threads": 1}
        record = _record(dataclasses.replace(task, origin=task.origin | times), numbers, made_by, times["started"])
        history = [{"epoch": 1, "train_loss": 1.0, "test_top1": score}] if score is not None else []
        Store(task.store).finish(task.run.signature, record | {"origin": task.origin | times}, history, weights=False)
        return [(task, Outcome("finished"))]

    def stop(self):
        pass

    kill = end_idle = stop


def scores(gains, deviation=0.6, seed=0, most=12):
    """A function (step, seed) -> score of the networks `STEPS`, and their table (networks, seeds)."""
    means = 70 + np.cumsum([0.0, *gains])
    table = means[:, None] + np.random.default_rng(seed).normal(0, deviation, (len(means), most))
    return lambda step, seed: table[STEPS.index(step), seed], table


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return once(tmp_path_factory, "images of rounds", lambda place: make_image_folder(place, 8, 4, (16, 16)))


@pytest.fixture(scope="module")
def prepared(images):
    """A ladder of three networks that grows until it is resolved to a point."""
    return prepare(StudySpec(only=STEPS, until_resolved=1.0, data_dir=str(images), **SMALL), Store("nowhere"))


@pytest.fixture
def run(prepared, tmp_path, monkeypatch, capsys):
    """A function that carries a study out with an engine; what it printed is in ``run.told``."""
    draw = roadmap.api.save_results

    def go(engine, name="study", study=prepared, drawn=False, **settings):
        monkeypatch.setattr(runner, "make_engine", lambda *_: engine)
        monkeypatch.setattr(roadmap.api, "save_results", draw if drawn else lambda *_, **__: None)
        study = dataclasses.replace(study, spec=dataclasses.replace(study.spec, **settings))
        place = tmp_path / name
        try:
            return roadmap.api.execute(study, place / "out", Store(place / "store"), PlainDisplay(), "test")
        finally:
            go.told = capsys.readouterr().out

    return go


def grown(table, slots=1, most=12):
    """The final look of `look` at these scores, run by run."""
    contrasts, stored = np.eye(3)[1:] - np.eye(3)[:-1], [0, 0, 0]
    while True:
        runs = [own[:count] for own, count in zip(table, stored, strict=True)]
        found = look(runs, contrasts, width=1.0, most_seeds=most, matters=29, slots=slots)
        if not found.next:
            return found
        for network in found.next:
            stored[network] += 1


# --- growing


@pytest.mark.parametrize("slots", [1, 5])
def test_a_study_grows_until_it_is_resolved_and_its_table_is_that_of_the_looks(run, slots):
    value, table = scores([4.0, 0.0])
    engine = Made(value, slots)
    study = run(engine, drawn=slots == 1, matters=29.0)
    assert Counter(engine.done[:9]) == Counter((step, seed) for step in STEPS for seed in range(3))
    assert len(engine.done) > 9 and len({*engine.done}) == len(engine.done)
    expected = grown(table)
    effects = study.effects
    assert effects["effect"].tolist() == ["gelu", "layer_norm"]
    assert effects["estimate"].tolist() == pytest.approx([one.estimate for one in expected.effects])
    assert effects["low"].tolist() == pytest.approx([one.low for one in expected.effects])
    assert effects["p_all"].tolist() == pytest.approx([one.p_all for one in expected.effects])
    assert effects["verdict"].tolist() == ["gain", "negligible"] == [one.verdict for one in expected.effects]
    assert effects["seeds"].tolist() == expected.seeds and effects["seeds"][0] == 3 < effects["seeds"][1]
    if slots == 1:
        assert pd.read_csv(study.path / "effects.csv")["low"].tolist() == pytest.approx(effects["low"].tolist())
    lines = [line for line in run.told.splitlines() if line.startswith("after")]
    assert lines[0].startswith("after 9 runs, of 2 effects: 1 decided (gelu gain); 1 open (layer_norm); about ")
    assert lines[-1].endswith("1 decided (gelu gain); 1 known to ±1 points (layer_norm): every effect is closed")
    assert "repeated confidence intervals" in repr(study) and "up to 12 a network" in repr(study)
    shown = call("effects", study.path)
    assert "repeated confidence intervals" in shown.out and not study.standing().next
    beside, _ = compared(study, study)
    assert beside.effects["layer_norm"]["low"] == effects["low"][1]
    single = dataclasses.replace(study, rule=None)
    assert single.effects["low"][0] > effects["low"][0] and "repeated" not in repr(single)


def test_a_killed_study_goes_on_as_if_it_had_not_been(run, tmp_path):
    value, _ = scores([4.0, 0.0], seed=3)
    undisturbed = Made(value)
    whole = run(undisturbed, "whole")
    for dies in (4, 6, 1):
        with pytest.raises(KeyboardInterrupt):
            run(Made(value, dies=dies), "killed")
    last = Made(value)
    study = run(last, "killed")
    pd.testing.assert_frame_equal(study.effects, whole.effects)
    signatures = [Store(tmp_path / name / "store").signatures() for name in ("whole", "killed")]
    assert signatures[0] == signatures[1] and len(last.done) == len(undisturbed.done) - 11
    assert study.asked == whole.asked
    again = Made(value)
    pd.testing.assert_frame_equal(run(again, "killed").effects, whole.effects)
    assert not again.done, "nothing is trained twice"


def test_what_stays_open_with_the_most_seeds_is_said(run):
    value, _ = scores([0.0, 0.0], deviation=3)
    study = run(Made(value), most_seeds=4, matters=1.0)
    assert Counter(study.runs["step"]) == dict.fromkeys(STEPS, 4) and (study.effects["verdict"] == "open").all()
    assert "2 not resolved with 4 seeds (gelu, layer_norm): every effect is closed" in run.told


def test_a_failed_run_closes_its_effects_and_is_tried_again_by_the_next_start_alone(run):
    value, _ = scores([0.0, 0.0], deviation=0.9)
    engine = Made(lambda step, seed: None if (step, seed) == ("layer_norm", 1) else value(step, seed))
    study = run(engine)
    assert engine.done.count(("layer_norm", 1)) == 1 and len(engine.done) > 9
    assert Counter(study.runs["step"])["layer_norm"] == 3
    assert "1 untestable, since a run failed (layer_norm)" in run.told
    row = study.effects.set_index("effect").loc["layer_norm"]
    assert pd.isna(row["low"]) and pd.isna(row["verdict"]) and row["failed"] == 1
    mended = Made(value)
    assert run(mended).effects["low"].notna().all() and ("layer_norm", 1) in mended.done


def test_the_budget_holds_over_all_starts(run):
    value, _ = scores([0.0, 0.0], deviation=0.9)
    engine = Made(value, slots=1, hours=1)
    study = run(engine, budget="11h")
    assert len(engine.done) == 11, "nine runs before the first look, and two rounds of one"
    last = run.told.splitlines()[-1]
    assert last.endswith("the budget of 11h is used up, and a larger --budget goes on from here") and "open" in last
    idle = Made(value, slots=1, hours=1)
    pd.testing.assert_frame_equal(run(idle, budget="11h").effects, study.effects)
    assert not idle.done
    further = Made(value, slots=1, hours=1)
    whole = run(further, budget="2d")
    assert "every effect is closed" in run.told
    pd.testing.assert_frame_equal(whole.effects, run(Made(value), "other").effects)


def test_given_seeds_are_the_beginning(run, images):
    asked = StudySpec(only=STEPS, until_resolved=1.0, seeds="7,3", data_dir=str(images), **SMALL)
    assert seeds_of(asked, plan_networks(asked)) == dict.fromkeys(STEPS, (7, 3, 8))


def test_the_settings_are_kept(prepared, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("until_resolved: 1\nmost_seeds: 5\nbudget: 6h\n")
    spec = load_spec(path)
    assert (spec.until_resolved, spec.most_seeds, spec.budget) == (1, 5, "6h")
    assert "until_resolved: 1\n" in yaml_text(dataclasses.asdict(spec)) and "budget: 6h" in yaml_text({"budget": "6h"})


@pytest.mark.parametrize(
    ("text", "seconds"), [("6h", 21600), ("90m", 5400), ("2d", 172800), ("1h30m", 5400), ("1.5h", 5400), ("45s", 45)]
)
def test_budgets(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        *(
            ({"until_resolved": 1, "budget": budget}, "must be a duration such as 6h")
            for budget in ("6", "h", "6 hours", "-1h", "0h", "", 6, "6h!", "nan")
        ),
        ({"until_resolved": 0}, "until_resolved is 0"),
        ({"until_resolved": True}, "until_resolved is True"),
        ({"until_resolved": 1, "most_seeds": 2}, "most_seeds is 2, but must be between 3"),
        ({"until_resolved": 1, "seeds": 13}, "--seeds are 13, but --most-seeds is 12"),
        ({"until_resolved": 1, "seeds_for": "gelu=5"}, "leave out --seeds-for"),
        ({"until_resolved": 1, "base_seeds": 5, "design": "leave-one-out"}, "leave out --base-seeds"),
        ({"until_resolved": 1, "only": "gelu"}, "no two networks to compare"),
        ({"until_resolved": 1, "start_from": "3f2a"}, "trains one network"),
        ({"until_resolved": 1, "design": "order", "orders": 2}, "whose error no seeds reduce"),
        ({"most_seeds": 9}, "--most-seeds is for --until-resolved"),
        ({"budget": "6h"}, "--budget is for --until-resolved"),
        ({"seeds_for": "gelo=4"}, "unknown network in seeds_for 'gelo' (did you mean 'gelu'?)"),
        ({"base_seeds": 4}, "base_seeds is of no use to --design ladder"),
    ],
)
def test_what_cannot_be_is_one_sentence(settings, sentence):
    with pytest.raises(RoadmapError) as caught:
        plan_networks(load_spec(**settings))
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


# --- unequal seeds


def test_unequal_seeds_from_plan_to_figures(images, tmp_path, monkeypatch):
    """Leave-one-out by way of Python and of the command line: the common network and another one have more seeds."""
    value = lambda step, seed: 70 + seed / 8 + len(step) / 50  # noqa: E731
    monkeypatch.setattr(runner, "make_engine", lambda *_: Made(value))
    settings = {
        "design": "leave-one-out",
        "steps": "gelu,layer_norm",
        "seeds": 2,
        "base_seeds": 5,
        "seeds_for": {"all but gelu": 3},
        "data_dir": str(images),
        **SMALL,
    }
    out, store = tmp_path / "out", tmp_path / "store"
    study = roadmap.run(out=out, store=store, **settings)
    assert Counter(study.runs["step"]) == {"all": 5, "all but gelu": 3, "all but layer_norm": 2}
    assert study.steps["seeds"].tolist() == [5, 3, 2] and not study.missing
    assert study.effects["seeds"].tolist() == [3, 2] and study.effects["missing"].tolist() == [0, 0]
    means = study.runs.groupby("step")["top1"].mean()
    assert study.effects["estimate"].tolist() == pytest.approx(
        [means["all"] - means[f"all but {name}"] for name in ("gelu", "layer_norm")]
    )
    assert (out / "ablation.svg").stat().st_size > 1000 and study.pareto() is not None
    Store(store).remove(study.runs.iloc[4]["signature"])
    again = roadmap.load_study(out)
    assert again.missing == [("all", 4)] and again.effects["missing"].tolist() == [1, 1]
    words = [f"--{name.replace('_', '-')}={text}" for name, text in settings.items() if name != "seeds_for"]
    shown = call("plan", *words, "--seeds-for", "all but gelu=3", "--out", out, "--store", store, "--json")
    assert shown.code == 0, shown.err
    assert call("status", out).code == 0


# --- what a plan can tell apart


def half_length(deviation, seeds, networks, effects):
    """By hand, for equal seeds and differences of two networks: moderated variance, Satterthwaite, Sidak."""
    freedom = seeds - 1
    own, common = freedom / (freedom + 5), 5 / (freedom + 5) / networks
    loads = np.full(networks, 2 * common / seeds)
    loads[:2] += own / seeds
    variance = 2 * deviation**2 / seeds
    nu = variance**2 / (loads**2 * deviation**4 / freedom).sum()
    return stats.t.isf((1 - 0.95 ** (1 / effects)) / 2, nu) * math.sqrt(variance)


def test_a_plan_says_what_its_seeds_can_tell_apart(prepared, tmp_path):
    asked = dataclasses.replace(prepared.spec, until_resolved=12.0)
    found = plan_resolution(dataclasses.replace(prepared, spec=asked), Store(tmp_path))
    assumed = math.sqrt(100**2 * 0.8 * 0.2 / 12 + 0.7**2)
    assert found.deviation == pytest.approx(assumed) == pytest.approx(assumed_deviation(12)) and found.runs == 0
    expected = half_length(assumed, 3, 3, 2)
    assert found.half_lengths == pytest.approx({"gelu": expected, "layer_norm": expected})
    assert half_length(assumed, found.needed, 3, 2) <= 12 < half_length(assumed, found.needed - 1, 3, 2)
    assert str(found) == (
        f"3 seeds each can tell differences above ±{expected:.2g} points apart (deviation between seeds {assumed:.2f}, "
        f"assumed, without earlier runs); ±12 would take about {found.needed}"
    )


def test_a_plan_learns_the_deviation_from_earlier_runs_of_such_networks(prepared, run, tmp_path):
    value, table = scores([9.0, 9.0], deviation=0.5)
    assert len(run(Made(value)).runs) == 9
    store = Store(tmp_path / "study" / "store")
    found = plan_resolution(prepared, store)
    deviation = math.sqrt(table[:, :3].var(axis=1, ddof=1).mean())
    assert (found.runs, found.deviation) == (9, pytest.approx(deviation))
    assert found.half_lengths["gelu"] == pytest.approx(half_length(deviation, 3, 3, 2))
    assert "from 9 earlier runs of such networks" in str(found)
    longer = [dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, epochs=2)) for run in prepared.runs]
    assert plan_resolution(dataclasses.replace(prepared, runs=longer), store).runs == 0
    one = [run for run in prepared.runs if run.seed == 0]
    told = str(plan_resolution(dataclasses.replace(prepared, runs=one), store))
    assert told.startswith("one seed each can tell no difference")


def test_a_network_with_more_seeds_has_shorter_intervals_in_the_plan(prepared, tmp_path):
    more = [dataclasses.replace(run, seed=seed) for run in prepared.runs[:1] for seed in range(3, 9)]
    found = plan_resolution(dataclasses.replace(prepared, runs=[*prepared.runs, *more]), Store(tmp_path))
    assert found.half_lengths["gelu"] < found.half_lengths["layer_norm"]
    assert str(found).startswith("3 seeds each and 9 of patchify_stem can tell differences above ±")
    assert str(found).endswith("; ±1 would take more than 1,000 each"), "12 test images"
