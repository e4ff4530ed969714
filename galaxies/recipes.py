"""Sets of settings: what each recipe changes from the defaults."""

from __future__ import annotations

from typing import Any

from config_physics import PAPER_ATTRIBUTES, Config

# `paper` is the document that this project started from: what of it differs from the defaults of the day on which this
# was written. tests/test_config_physics.py holds all its settings, so that no later default changes it unnoticed.
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "attributes": PAPER_ATTRIBUTES,
        "precision": "fp32",
        "generator": "transposed",
        "pixel_noise": False,
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

# What a CPU changes of the default recipe: settings, then the steps of each phase, whatever the number of images, with
# bf16 and without.
QUICK: dict[str, tuple[dict[str, Any], dict[bool, dict[str, int]]]] = {
    # Under ten minutes on two cores.
    "GAN": (
        {"width": 32, "batch_size": 32},
        {True: {"pretrain_epochs": 1500, "epochs": 3000}, False: {"pretrain_epochs": 1500, "epochs": 2200}},
    ),
    # Under half an hour.
    "diffusion": (
        {"width": 16, "batch_size": 16, "unet_blocks": 1},
        {True: {"pretrain_epochs": 2500, "epochs": 6000}, False: {"pretrain_epochs": 2500, "epochs": 4500}},
    ),
}
