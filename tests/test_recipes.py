"""Recipes as data: the shipped ones, overrides, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
from commands import call

from roadmap import RoadmapError
from roadmap.recipes.recipe import Recipe, load_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_resolve_and_say_why(name):
    recipe = load_recipe(name)
    assert recipe.name == name and len(recipe.why) > 40
    if recipe.classic:
        assert load_recipe(recipe.classic).classic is None


@pytest.mark.parametrize("name", recipe_names())
def test_a_printed_recipe_is_the_recipe(name, tmp_path):
    shown = call("recipes", name)
    (tmp_path / "mine.yaml").write_text(shown.out)
    again = load_recipe(str(tmp_path / "mine.yaml"))
    assert dataclasses.replace(again, name=name, why=load_recipe(name).why) == load_recipe(name)


def test_recipes_are_those_of_tables_5_and_6():
    """By the columns of the paper, settings of the released code aside."""
    for name, expected in {
        "pretrain-22k": (90, 4096, 4e-3, 5, 0.05, None, 0.8, 1.0, {"resnet50": 0.0, "resnet200": 0.1}),
        "finetune-384": (30, 512, 5e-5, 0, 1e-8, 0.7, 0.0, 0.0, {"resnet50": 0.1, "resnet200": 0.8}),
        "finetune-1k": (30, 512, 5e-5, 0, 1e-8, 0.8, 0.0, 0.0, {"resnet50": 0.0, "resnet200": 0.2}),
    }.items():
        recipe = load_recipe(name)
        found = (
            recipe.epochs, recipe.batch_size, recipe.peak_lr, recipe.warmup_epochs, recipe.weight_decay,
            recipe.layer_decay, recipe.mixup, recipe.cutmix, recipe.stochastic_depth,
        )  # fmt: skip
        assert found == expected, name
        common = (recipe.optimizer, recipe.betas, recipe.schedule, recipe.randaugment, recipe.random_erasing,
                  recipe.label_smoothing, recipe.clip_gradient, recipe.ema)  # fmt: skip
        assert common == ("adamw", (0.9, 0.999), "cosine", "rand-m9-mstd0.5-inc1", 0.25, 0.1, None, None), name
    assert load_recipe("finetune-384").image_size == 384 and load_recipe("finetune-384").head_scale == 0.001


def test_modern_is_table_5_without_ema():
    recipe = load_recipe("modern")
    assert (recipe.epochs, recipe.batch_size, recipe.peak_lr, recipe.warmup_epochs) == (300, 4096, 4e-3, 20)
    assert (recipe.optimizer, recipe.weight_decay, recipe.betas) == ("adamw", 0.05, (0.9, 0.999))
    assert (recipe.mixup, recipe.cutmix, recipe.label_smoothing, recipe.random_erasing) == (0.8, 1.0, 0.1, 0.25)
    assert "m9" in recipe.randaugment and "mstd0.5" in recipe.randaugment


def test_classic_is_the_torchvision_reference():
    recipe = load_recipe("classic")
    assert (recipe.epochs, recipe.batch_size, recipe.peak_lr, recipe.optimizer) == (90, 256, 0.1, "sgd")
    assert (recipe.momentum, recipe.weight_decay, recipe.milestones, recipe.step_factor) == (0.9, 1e-4, (30, 60), 0.1)
    assert recipe.decay_all and not recipe.mixes and recipe.randaugment is None and recipe.label_smoothing == 0


def test_learning_rate_follows_the_batch_unless_given():
    recipe = Recipe("r", lr=0.1, lr_batch_size=256, batch_size=256)
    assert recipe.with_training(batch_size=64).peak_lr == pytest.approx(0.025)
    assert recipe.with_training(batch_size=64, lr=0.3).peak_lr == pytest.approx(0.3)
    assert recipe.with_training(lr=0.3).peak_lr == pytest.approx(0.3)


def test_the_schedule_keeps_its_shape_at_other_epochs():
    recipe = Recipe("r", epochs=100, schedule="step", milestones=(30, 60), warmup_epochs=5).with_training(epochs=10)
    assert (recipe.epochs, recipe.milestones, recipe.warmup_epochs) == (10, (3, 6), 0.5)


def test_recipe_from_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 3\nbetas: [0.9, 0.95]\n")
    recipe = load_recipe(str(path))
    assert (recipe.name, recipe.epochs, recipe.betas) == ("mine", 3, (0.9, 0.95))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": 1.5}, "whole number"),
        ({"epochs": 5, "warmup_epochs": 5}, "must be below the 5 epochs"),
        ({"optimizer": "adamw2"}, "did you mean 'adamw'"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"schedule": "poly"}, "must be one of cosine, linear, step"),
        ({"betas": (1.0, 1.0)}, "below 1"),
        ({"randaugment": "foo-bar"}, "must be like rand-m9"),
        ({"randaugment": "rand-w5"}, "must be like rand-m9"),
        ({"randaugment": "rand-m9..9"}, "must be like rand-m9"),
        ({"randaugment": "rand-n100000"}, "must be like rand-m9"),
        ({"randaugment": 9}, "randaugment is '9'"),
        ({"classic": [5]}, "classic is .5., but must be text"),
        ({"lr": 0}, "lr is 0, but must be above 0"),
        ({"lr": float("nan")}, "finite"),
        ({"mixup": 0.8, "batch_size": 7}, "must be even"),
        ({"schedule": "step"}, "schedule 'step' needs milestones"),
        ({"milestones": (1,)}, "milestones are for schedule 'step'"),
        ({"schedule": "step", "milestones": (2,)}, "milestones is 2"),
        ({"schedule": "step", "epochs": 9, "milestones": (4, 2)}, "must rise"),
        ({"ema": 1.0}, "ema is 1.0, but must be below 1"),
        ({"ema_warmup": True}, "ema_warmup needs ema"),
        ({"layer_decay": 0}, "layer_decay is 0"),
        ({"accumulate": 3, "batch_size": 16}, "cannot be split into 3 equal parts"),
        ({"accumulate": 16, "batch_size": 16}, "cannot be split into 16 equal parts"),
        ({"accumulate": 2, "batch_size": 6, "cutmix": 1.0}, "in 2 parts, but Mixup and CutMix pair"),
        ({"min_lr": 1.0}, "must not be above the peak learning rate"),
        ({"stochastic_depth": {"resnet50": 2}}, "stochastic_depth is 2"),
        ({"crop_scale": (1.0, 0.5)}, "two rising shares"),
        ({"betas": (0.9,)}, "must be 2 numbers"),
        ({"stochastic_depth": 1.0}, "stochastic_depth"),
        ({"flip": "yes"}, "true or false"),
    ],
)
def test_impossible_settings(settings, sentence):
    with pytest.raises(RoadmapError, match=sentence) as caught:
        Recipe("r", **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epoch: 3", "unknown setting of a recipe 'epoch' .did you mean 'epochs'"),
        ("epochs: [", "not valid YAML"),
        ("- 1", "must hold settings"),
        ("", "must hold settings"),
    ],
)
def test_bad_recipe_files(tmp_path, text, sentence):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RoadmapError, match=sentence) as caught:
        load_recipe(str(path))
    assert "\n" not in str(caught.value)
