"""Sets of settings: what each recipe changes from the defaults."""

from __future__ import annotations

from typing import Any

from config_physics import PAPER_ATTRIBUTES, Config

# `paper` is the document that this project started from; it spells out
# every number of its own, so that a better default never changes it.
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "attributes": PAPER_ATTRIBUTES,
        "latent_dim": 100,
        "width": 64,
        "generator": "transposed",
        "batch_norm": True,
        "pixel_noise": False,
        "discriminator": "dcgan",
        "dropout": 0.3,
        "condition_mask": False,
        "pretrain_epochs": 30,
        "pretrain_learning_rate": 1.5e-4,
        "pretrain_decay": False,
        "uncertainty": False,
        "physics_weight": 3.0,
        "photometry_weight": 0.0,
        "epochs": 150,
        "batch_size": 64,
        "learning_rate": 1.5e-4,
        "decay": 0.0,
        "beta1": 0.5,
        "beta2": 0.999,
        "clip_norm": 1.0,
        "adversarial": "bce",
        "real_label": 0.9,
        "fake_label": 0.1,
        "r1_weight": 0.0,
        "r2_weight": 0.0,
        "regression_weight": 0.0,
        "class_weight": 0.0,
        "augment_discriminator": "none",
        "label_jitter": 0.0,
        "perceptual_weight": 0.0,
        "perceptual": "predictor",
        "vgg_weights": "",
        "ema_decay": 0.0,
        "augment": False,
        "balanced": False,
        "checkpoint_every": 10,
        "precision": "fp32",
    },
}

# What --diffusion changes on top of a recipe.
DIFFUSION_RECIPES: dict[str, dict[str, Any]] = {
    "default": {
        "learning_rate": 2e-3,
        "decay": 1.0,
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
        "unet_blocks": 2,
        "unet_patch": 2,
        "normalize": False,
        "stratified": False,
        "solver": "ddpm",
        "solver_steps": 100,
        "guidance": 1.0,
        "beta1": 0.9,
        # The document's GAN settings, of which a diffusion model has none.
        "generator": Config.generator,
        "discriminator": Config.discriminator,
        "pixel_noise": Config.pixel_noise,
        "regression_weight": Config.regression_weight,
        "r1_weight": Config.r1_weight,
    },
}
