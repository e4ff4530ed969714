"""Recipes for the machine at hand."""

from __future__ import annotations

import pytest

from config_physics import Config
from galaxies.recipes import MACHINES, machine_recipe, machine_settings


@pytest.mark.parametrize(
    ("recipe", "device", "memory", "chosen"),
    [
        ("default", "cpu", 25.3, "cpu"),
        ("default", "cuda", 8.2, "laptop"),
        ("default", "cuda", 39.9, "laptop"),
        ("default", "cuda", 80.0, "datacenter"),
        ("default", "cuda", None, "laptop"),
        ("default", "mps", 64.0, "laptop"),
        ("datacenter", "cpu", 8.0, "datacenter"),
        ("full", "cpu", 8.0, None),
        ("paper", "cuda", 80.0, None),
    ],
)
def test_the_recipe_of_a_machine(recipe, device, memory, chosen):
    assert machine_recipe(recipe, device, memory) == chosen


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("family", ["GAN", "diffusion"])
def test_a_recipe_has_its_steps_whatever_the_number_of_galaxies(name, family):
    recipe = MACHINES[name]
    for bf16 in (True, False):
        for num_train in (20_000, 200_000):
            settings = machine_settings(name, family, bf16, num_train, 64, {})
            config = Config(**settings, diffusion=family == "diffusion")  # they are settings of the family
            for phase, steps in recipe.steps[family][bf16].items():
                per_epoch = num_train // config.batch_size
                assert getattr(config, phase) * per_epoch == pytest.approx(steps, abs=max(per_epoch, steps / 2))


def test_what_was_given_stays_and_few_galaxies_are_not_learned_by_heart():
    assert machine_settings("cpu", "GAN", True, 5170, 64, {}) == {
        "width": 32,
        "batch_size": 32,
        "pretrain_epochs": 9,  # 1,500 steps of 161 an epoch
        "epochs": 19,
    }
    assert "width" not in machine_settings("cpu", "GAN", True, 5170, 64, {"width": 8})
    halved = machine_settings("cpu", "GAN", True, 5170, 64, {"batch_size": 64})
    assert (halved["epochs"], "batch_size" in halved) == (38, False)
    assert machine_settings("cpu", "GAN", True, 5170, 128, {})["epochs"] == 6  # steps are three times as long
    assert machine_settings("cpu", "GAN", True, 5170, 128, {"detail_stages": False})["epochs"] == 5  # four times
    assert machine_settings("cpu", "diffusion", True, 51_700, 64, {})["epochs"] == 2
    assert machine_settings("cpu", "diffusion", True, 5170, 128, {})["epochs"] == 5
    assert machine_settings("cpu", "GAN", True, 100, 64, {})["epochs"] == Config.epochs
    assert machine_settings("datacenter", "GAN", True, 100, 64, {})["epochs"] == 3 * Config.epochs
    assert machine_settings("datacenter", "GAN", True, 5170, 64, {})["epochs"] == 450
