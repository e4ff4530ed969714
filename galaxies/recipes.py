"""Sets of settings: what each recipe changes from the defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from config_physics import PAPER_ATTRIBUTES, Config

# `paper` is the document that this project started from: what of it differs from the defaults of the day on which this
# was written. Every other recipe is `default`, as the machine allows it.
# tests/test_config_physics.py holds all its settings, so that no later default changes it unnoticed.
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "attributes": PAPER_ATTRIBUTES,
        "precision": "fp32",
        "generator": "transposed",
        "pixel_noise": False,
        "detail_stages": False,
        "discriminator": "dcgan",
        "condition_mask": False,
        "pretrain_learning_rate": 1.5e-4,
        "pretrain_decay": False,
        "uncertainty": False,
        "readable_only": False,
        "photometry_weight": 0.0,
        "learning_rate": 1.5e-4,
        "decay": 0.0,
        "r1_weight": 0.0,
        "regression_weight": 0.0,
        "ema_decay": 0.0,
        "augment": False,
    },
}

# What --diffusion changes on top of a recipe.
DIFFUSION_RECIPES: dict[str, dict[str, Any]] = {
    "default": {
        "learning_rate": 2e-3,
        "decay": 1.0,
        "warmup": 50,
        "beta1": 0.9,
        "physics_weight": 1.0,
        "photometry_weight": 1.0,
    },
    "paper": {
        "diffusion_steps": 100,
        "noise_schedule": "linear",
        "noise_shift": 1.0,
        "prediction": "noise",
        "low_noise_share": 0.0,
        "min_snr_gamma": 0.0,
        "condition_dropout": 0.0,
        "normalize": False,
        "stratified": False,
        "solver": "ddpm",
        "solver_steps": 100,
        "learning_rate_width": 0,
        "beta1": 0.9,
        # The document's GAN settings, of which a diffusion model has none.
        "generator": Config.generator,
        "discriminator": Config.discriminator,
        "pixel_noise": Config.pixel_noise,
        "regression_weight": Config.regression_weight,
        "r1_weight": Config.r1_weight,
    },
}

# What networks that paint light change on top of these: by the generator, or the diffusion model.
LIGHT_RECIPES: dict[str, dict[str, Any]] = {
    "frame": {"profiles": "fine"},  # light is sharper than what a telescope shows of it
    "diffusion": {"low_noise_share": 0.0},  # the grain of the sky need not be learned
}


@dataclass(frozen=True)
class MachineRecipe:
    """What is changed of the defaults for a kind of machine, so that a training takes a known time on it.

    Attributes
    ----------
    machine, duration : str
        For whom it is, and how long it takes there, by family.
    settings : dict
        By family.
    steps : dict
        By family: of each phase, whatever the number of images; with bf16 (True) and without (False).
    most : int
        Times the epochs of the defaults that no phase gets more than: a small dataset is not learned by heart.
    expected : dict of str
        By family: what came out where it was measured, in a sentence.
    """

    machine: str
    duration: dict[str, str]
    settings: dict[str, dict[str, Any]]
    steps: dict[str, dict[bool, dict[str, int]]]
    most: int
    expected: dict[str, str]


def _always(**steps: int) -> dict[bool, dict[str, int]]:
    return {True: steps, False: steps}


_GPU_SETTINGS: dict[str, dict[str, Any]] = {"GAN": {}, "diffusion": {"width": 32, "learning_rate": 1e-3}}
_GPU_STEPS = {
    "GAN": _always(pretrain_epochs=2400, epochs=36_000),
    "diffusion": _always(pretrain_epochs=2400, epochs=13_600),
}
# Found on an H200 in training of that many steps on 5,170 real galaxies; see docs/training.md.
_GPU_EXPECTED = {
    "GAN": "ellipticity within 0.030 and size within 3.0 % by photometry, Frechet distances 0.9 to 1.5 times those of "
    "real galaxies from each other, found of 5,170 real galaxies",
    "diffusion": "ellipticity within 0.052 by photometry, Frechet distances 1.1 to 2.4 times those of real galaxies "
    "from each other, found of 5,170 real galaxies",
}

# By the names that --recipe takes. `machine_recipe` chooses one.
MACHINES: dict[str, MachineRecipe] = {
    "cpu": MachineRecipe(
        "two CPU cores",
        {"GAN": "ten minutes", "diffusion": "half an hour"},
        {
            "GAN": {"width": 32, "batch_size": 32},
            "diffusion": {"width": 16, "batch_size": 16, "unet_blocks": 1},
        },
        {
            "GAN": {
                True: {"pretrain_epochs": 1500, "epochs": 3000},
                False: {"pretrain_epochs": 1500, "epochs": 2200},
            },
            "diffusion": {
                True: {"pretrain_epochs": 2500, "epochs": 6000},
                False: {"pretrain_epochs": 2500, "epochs": 4500},
            },
        },
        1,
        {
            "GAN": "ellipticity within 0.036 and size within 4.1 % by photometry, Frechet distances 1.6 to 5.6 times "
            "those of real galaxies from each other, found of 4,741 real galaxies",
            "diffusion": "four classes that are told apart at a glance and attributes that follow, of a mock survey; "
            "no report was made of it",
        },
    ),
    "laptop": MachineRecipe(
        "a GPU of 8 GB or more",
        {
            "GAN": "an hour by estimate from its memory's speed",
            "diffusion": "an hour by estimate from its memory's speed",
        },
        _GPU_SETTINGS,
        _GPU_STEPS,
        3,
        _GPU_EXPECTED,
    ),
    "datacenter": MachineRecipe(
        "a GPU of 40 GB or more",
        {"GAN": "five minutes on an H200", "diffusion": "five minutes on an H200"},
        _GPU_SETTINGS,
        _GPU_STEPS,
        3,
        _GPU_EXPECTED,
    ),
}
_LARGE_GB = 40.0


def machine_recipe(recipe: str, device_type: str, memory_gb: float | None) -> str | None:
    """Return which of `MACHINES` a recipe means on a device, None for one that is the same everywhere.

    Parameters
    ----------
    recipe : str
        Of `Config`: ``default`` is that of the machine at hand.
    device_type : {"cpu", "cuda", "mps"}
    memory_gb : float or None
        Of the device, 1e9 bytes; None where the system does not tell.
    """
    if recipe != "default":
        return recipe if recipe in MACHINES else None
    if device_type == "cpu":
        return "cpu"
    return "datacenter" if device_type == "cuda" and (memory_gb or 0.0) >= _LARGE_GB else "laptop"


def machine_settings(
    name: str, family: str, bf16: bool, num_train: int, image_size: int, given: dict[str, Any]
) -> dict[str, Any]:
    """Return what one of `MACHINES` changes, but for what was given.

    Parameters
    ----------
    name : str
    family : {"GAN", "diffusion"}
    bf16 : bool
        Whether the machine computes in it.
    num_train : int
        Training galaxies: as many epochs are chosen as have the recipe's steps.
    image_size : int
        Pixels a side. A doubling makes a step four times as long, and three times where detail is added by stages.
    given : dict
        Settings that the user has chosen.
    """
    recipe = MACHINES[name]
    settings = {key: value for key, value in recipe.settings[family].items() if key not in given}
    batch_size = (settings | given).get("batch_size", Config.batch_size)
    per_epoch = max(1, num_train // batch_size)
    staged = family == "GAN" and given.get("detail_stages", Config.detail_stages)
    longer = (3 if staged else 4) ** math.log2(image_size / 64)
    for key, steps in recipe.steps[family][bf16].items():
        if key not in given:
            epochs = max(1, round(steps / per_epoch / longer))
            settings[key] = min(epochs, recipe.most * getattr(Config, key))
    return settings
