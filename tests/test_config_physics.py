"""Tables, settings and recipes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from config_physics import (
    ATTRIBUTES,
    FLUX_ATTRIBUTES,
    MORPHOLOGY_NAMES,
    PAPER_ATTRIBUTES,
    Config,
    attribute_of,
    attribute_table,
    bands_of_attribute,
    fault_of_classes,
    morphologies_of,
    morphology_index,
)
from galaxies.common.errors import UserError
from galaxies.recipes import DIFFUSION_RECIPES, RECIPES


def test_class_indices_are_those_of_the_specification():
    assert MORPHOLOGY_NAMES == ("spiral", "elliptical", "merger", "edge-on")


@pytest.mark.parametrize("name, index", [("spiral", 0), ("edge_on", 3), (" Edge-On ", 3), ("MERGER", 2)])
def test_morphology_names_are_forgiving(name, index):
    assert morphology_index(name) == index


def test_unknown_morphology_names_the_choices():
    with pytest.raises(UserError, match="'lenticular': choose one of spiral, elliptical, merger, edge-on"):
        morphology_index("lenticular")


@pytest.mark.parametrize("attribute", ATTRIBUTES.values(), ids=lambda a: a.name)
def test_scaling_is_undone_by_its_inverse(attribute):
    values = np.linspace(attribute.low, attribute.high, 7)
    np.testing.assert_allclose(attribute.from_unit(attribute.to_unit(values)), values, atol=1e-12)


@pytest.mark.parametrize("attribute", ATTRIBUTES.values(), ids=lambda a: a.name)
def test_range_maps_to_the_unit_interval_unless_raw(attribute):
    expected = (attribute.low, attribute.high) if attribute.raw else (0.0, 1.0)
    assert (attribute.to_unit(attribute.low), attribute.to_unit(attribute.high)) == expected


def test_document_proxies_have_the_document_ranges():
    ranges = [(ATTRIBUTES[name].low, ATTRIBUTES[name].high) for name in PAPER_ATTRIBUTES]
    assert ranges == [(0.3, 1.0), (0.2, 1.0), (0.0, 0.9), (0.0, 0.5)]


def test_attribute_named_twice_is_refused():
    with pytest.raises(UserError, match="'size' is named twice"):
        attribute_table(("size", "size"))


def test_unknown_attribute_is_refused():
    with pytest.raises(UserError, match="unknown attribute 'mass'"):
        attribute_table(("mass",))


def test_paper_recipe_is_the_document():
    config = Config(recipe="paper", **RECIPES["paper"])
    document = {
        "latent_dim": 100,
        "condition_dim": 8,
        "pretrain_epochs": 30,
        "epochs": 150,
        "batch_size": 64,
        "learning_rate": 1.5e-4,
        "beta1": 0.5,
        "beta2": 0.999,
        "clip_norm": 1.0,
        "uncertainty": False,
        "physics_weight": 3.0,
        "photometry_weight": 0.0,
        "real_label": 0.9,
        "fake_label": 0.1,
        "checkpoint_every": 10,
        "attributes": PAPER_ATTRIBUTES,
        "pretrain_learning_rate": 1.5e-4,
        "pretrain_decay": False,
        "generator": "transposed",
        "discriminator": "dcgan",
        "width": 64,
        "dropout": 0.3,
        "r1_weight": 0.0,
        "ema_decay": 0.0,
        "augment": False,
        "balanced": False,
        "precision": "fp32",
        "batch_norm": True,
        "pixel_noise": False,
        "adversarial": "bce",
        "r2_weight": 0.0,
        "regression_weight": 0.0,
        "class_weight": 0.0,
        "augment_discriminator": "none",
        "label_jitter": 0.0,
        "free_requests": 0.0,
        "perceptual_weight": 0.0,
    }
    assert {name: getattr(config, name) for name in document} == document


def test_condition_has_flags_of_known_values_by_default():
    assert Config().condition_dim == 4 + 2 * 4


@pytest.mark.parametrize(
    "change, message",
    [
        ({"epochs": 0}, "epochs is 0: it must lie between 1 and"),
        ({"learning_rate": float("nan")}, "learning_rate is nan: it takes a finite number"),
        ({"batch_size": 2.5}, "batch_size is 2.5: it takes a whole number"),
        ({"batch_size": True}, "batch_size is True: it takes a whole number"),
        ({"precision": "fp8"}, "precision is 'fp8': choose one of auto, fp32, bf16"),
        ({"run": "../up"}, "run is '../up'"),
        ({"run": ".hidden"}, "run is '.hidden'"),
        ({"attributes": ()}, "attributes is empty"),
        ({"image_size": 65}, "image_size is 65: choose one of 64, 128, 256"),
    ],
)
def test_bad_settings_name_field_value_and_range(change, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        Config(**change)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batch_norm": False, "generator": "resize"}, "batch_norm is False: it needs generator 'frame' or 'residual'"),
        ({"real_label": 1.0, "adversarial": "relativistic"}, "real_label is 1.0: it needs adversarial 'bce', which is"),
        ({"fake_label": 0.0, "adversarial": "relativistic"}, "fake_label is 0.0: it needs adversarial 'bce', which is"),
        ({"regression_weight": 1.0, "discriminator": "dcgan"}, "regression_weight is 1.0: it needs discriminator"),
        ({"class_weight": 1.0, "discriminator": "dcgan"}, "class_weight is 1.0: it needs discriminator"),
        (
            {"perceptual": "vgg16", "vgg_weights": "f"},
            "perceptual is 'vgg16': it needs perceptual_weight too, which is",
        ),
        (
            {"perceptual": "vgg16", "perceptual_weight": 1.0},
            "perceptual is 'vgg16': it needs vgg_weights too, which is",
        ),
        ({"vgg_weights": "f", "perceptual_weight": 1.0}, "vgg_weights is 'f': it needs perceptual 'vgg16', which is"),
    ],
)
def test_settings_that_exclude_each_other_are_refused_naming_both(change, message):
    with pytest.raises(UserError, match=message):
        Config(**change)


def test_a_dcgan_s_discriminator_reads_nothing():
    assert (
        Config(discriminator="dcgan", regression_weight=0.0).condition_dim
        == Config(discriminator="dcgan").condition_dim
    )


GAN_SETTINGS = {
    "latent_dim": 50,
    "generator": "residual",
    "batch_norm": False,
    "profiles": "fine",
    "pixel_noise": False,
    "discriminator": "dcgan",
    "adversarial": "relativistic",
    "real_label": 1.0,
    "fake_label": 0.0,
    "r1_weight": 1.0,
    "r2_weight": 1.0,
    "regression_weight": 1.0,
    "class_weight": 1.0,
    "augment_discriminator": "adaptive",
    "label_jitter": 0.1,
    "free_requests": 0.5,
    "perceptual_weight": 1.0,
}


@pytest.mark.parametrize("name", GAN_SETTINGS)
def test_a_diffusion_model_has_no_settings_of_the_gan(name):
    Config(**{name: GAN_SETTINGS[name]})
    with pytest.raises(
        UserError, match=f"{name} is .*: it is a setting of the GAN, and with diffusion none is trained"
    ):
        Config(**{name: GAN_SETTINGS[name]}, diffusion=True)


def test_every_setting_of_the_gan_is_known_to_be_one():
    family = {s.name for s in dataclasses.fields(Config) if s.metadata.get("family") == "GAN"}
    assert family == set(GAN_SETTINGS) | {"perceptual", "vgg_weights"}


@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_diffusion_recipes_keep_the_gan_s_settings_at_their_defaults(recipe):
    Config(recipe=recipe, **{**RECIPES[recipe], **DIFFUSION_RECIPES[recipe]}, diffusion=True)


def test_settings_survive_the_round_trip_through_a_dictionary():
    config = Config(run="x", attributes=("size", "color"), epochs=3)
    assert Config.from_dict(config.to_dict()) == config


def test_unknown_settings_are_refused():
    with pytest.raises(UserError, match="the settings magic are not those of this release"):
        Config.from_dict({**Config().to_dict(), "magic": 1})


def test_missing_settings_are_not_made_up():
    values = Config().to_dict()
    del values["generator"]
    with pytest.raises(UserError, match="the settings generator are not those of this release"):
        Config.from_dict(values)


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().epochs = 3


# All settings of the paper's recipe, as they were when it was written (for the GAN; then what differs for the
# diffusion model). They are those of the document, or change nothing of it: a default that changes must leave them be,
# by a new entry in `galaxies.recipes`.
PAPER = {
    "data": "",
    "run": "",
    "recipe": "paper",
    "attributes": ["vote_count", "vote_smoothness", "vote_elongation", "random_redshift"],
    "diffusion": False,
    "seed": 0,
    "device": "auto",
    "precision": "fp32",
    "engine": "auto",
    "compile": "auto",
    "kind": "display",
    "bands": ["r", "g", "b"],
    "classes": ["spiral", "elliptical", "merger", "edge-on"],
    "softening": [],
    "soft_classes": False,
    "class_labels": [],
    "class_descriptions": [],
    "psf_fwhm": [],
    "telescope": "on",
    "oversampling": 2,
    "wavelengths": [],
    "photons": [],
    "psf_profile": "kolmogorov",
    "psf_pixels": 0,
    "pixel_scale": 0.0,
    "attribute_ranges": [],
    "attribute_definitions": [],
    "image_size": 64,
    "latent_dim": 100,
    "width": 64,
    "generator": "transposed",
    "batch_norm": True,
    "profiles": "coarse",
    "pixel_noise": False,
    "detail_stages": False,
    "discriminator": "dcgan",
    "dropout": 0.3,
    "condition_mask": False,
    "diffusion_steps": 1000,
    "noise_schedule": "cosine",
    "noise_shift": 4.0,
    "prediction": "v",
    "low_noise_share": 0.25,
    "min_snr_gamma": 500.0,
    "condition_dropout": 0.1,
    "unet_blocks": 2,
    "unet_patch": 2,
    "normalize": True,
    "stratified": True,
    "solver": "sde",
    "solver_steps": 20,
    "guidance": 1.0,
    "pretrain_epochs": 30,
    "pretrain_learning_rate": 1.5e-4,
    "pretrain_decay": False,
    "uncertainty": False,
    "readable_only": False,
    "physics_weight": 3.0,
    "photometry_weight": 0.0,
    "epochs": 150,
    "batch_size": 64,
    "learning_rate": 1.5e-4,
    "decay": 0.0,
    "learning_rate_width": 32,
    "warmup": 0,
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
    "free_requests": 0.0,
    "perceptual_weight": 0.0,
    "perceptual": "predictor",
    "vgg_weights": "",
    "ema_decay": 0.0,
    "average_snapshots": 0,
    "on_nan": "recover",
    "augment": False,
    "balanced": False,
    "checkpoint_every": 10,
    "log_every": 50,
}
PAPER_DIFFUSION = PAPER | {
    "diffusion": True,
    "generator": "frame",
    "pixel_noise": True,
    "discriminator": "projection",
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
    "r1_weight": 0.2,
    "regression_weight": 10.0,
}


@pytest.mark.parametrize(("diffusion", "frozen"), [(False, PAPER), (True, PAPER_DIFFUSION)], ids=["gan", "diffusion"])
def test_no_default_changes_the_paper_recipe(diffusion, frozen):
    changes = RECIPES["paper"] | (DIFFUSION_RECIPES["paper"] if diffusion else {})
    resolved = Config(recipe="paper", diffusion=diffusion, **changes).to_dict()
    # Settings of the other family, of which this one has none, stay at their defaults, whatever these are.
    other = {
        s.name for s in dataclasses.fields(Config) if s.metadata.get("family") == ("GAN" if diffusion else "diffusion")
    }
    assert {k: v for k, v in resolved.items() if k not in other} == {k: v for k, v in frozen.items() if k not in other}


def test_the_paper_recipe_lists_only_what_differs():
    same = {name for name, value in RECIPES["paper"].items() if value == getattr(Config, name)}
    assert same == set()


def test_what_cannot_go_together_is_refused_by_both_names():
    with pytest.raises(UserError, match="prediction is 'noise': it needs noise_schedule 'linear'"):
        Config(diffusion=True, prediction="noise")
    with pytest.raises(UserError, match="guidance is 2: it needs condition_dropout too"):
        Config(diffusion=True, guidance=2, condition_dropout=0.0)
    with pytest.raises(UserError, match="that folder is for generators that come with the program"):
        Config(run="released")


def test_many_missing_settings_are_one_sentence_of_bounded_length():
    with pytest.raises(UserError, match=r"^the settings .* and \d+ more are not those of this release") as caught:
        Config.from_dict({})
    assert len(str(caught.value)) < 400


def test_attributes_of_bands_are_named_after_them():
    assert attribute_of("magnitude_Ks").label == "Magnitude Ks" and attribute_of("magnitude_Ks").unit == "mag"
    assert attribute_of("surface_brightness_F814W").unit == "mag/arcsec2"
    assert attribute_of("color_g_r").plausible == (-15.0, 15.0)
    assert bands_of_attribute("color_g_Ks") == ("g", "Ks") and bands_of_attribute("magnitude_r") == ("r",)
    for name in (
        "color_r_r",
        "magnitude_",
        "magnitude_a_b",
        "color_g",
        "color_g_r_i",
        "magnitude_g r",
        "colour_g_r",
        "",
    ):
        assert attribute_of(name) is None, name
    # A table's name is never that of a band's.
    assert all(bands_of_attribute(name) == () for name in (*ATTRIBUTES, *FLUX_ATTRIBUTES))


def test_classes_of_any_names_are_found_as_people_write_them():
    classes = ("ring", "barred_spiral", "S0", "edge-on")
    for written, place in (("Rings", 0), ("barred spiral", 1), ("Barred-Spirals", 1), ("s0", 2), (" 'Edge on' ", 3)):
        assert morphology_index(written, classes) == place
    with pytest.raises(UserError, match="unknown morphology 'spiral': choose one of ring, barred_spiral, S0, edge-on"):
        morphology_index("spiral", classes)
    assert [m.label for m in morphologies_of(("merger", "barred_spiral"))] == ["Merger", "Barred spiral"]


def test_names_that_differ_by_capitals_alone_are_two_classes():
    classes = ("SAb", "Sab", "E")  # unbarred, and between Sa and Sb (de Vaucouleurs 1959)
    assert [morphology_index(name, classes) for name in ("SAb", "Sab", " Sab ", "es")] == [0, 1, 1, 2]
    with pytest.raises(UserError, match="morphology 'sab' may be SAb and Sab: write it as it stands there"):
        morphology_index("sab", classes)


def test_a_misspelt_class_is_told_the_nearest():
    many = ("Sa", "Sb", "Sc", "S0", "E", "ringed_spiral", "merger", "edge-on", "irregular")
    with pytest.raises(UserError, match=r"choose one of Sa, Sb, .*, irregular; is it ringed_spiral\?$"):
        morphology_index("ringd spirals", many)
    with pytest.raises(UserError, match=r", irregular$"):
        morphology_index("xyz", many)


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        (("spiral", "S0", "Sa (barred), ringed", "ålesund", "9"), ""),
        ([f"c{k}" for k in range(64)], ""),
        ((), "there is no class"),
        (("a", "b", "a"), "'a' is the name of two classes"),
        ([f"c{k}" for k in range(65)], "there are 65 classes, such as 'c0', where up to 64 are possible"),
        (("a" * 40,), ""),
        (("a" * 41,), "is no name of a class"),
        (("",), "'' is no name of a class"),
        (("a ",), "'a ' is no name of a class"),
        (("-a",), "'-a' is no name of a class"),
        (("a\nb",), "is no name of a class"),
        (("a;b",), "'a;b' is no name of a class"),
    ],
)
def test_what_a_class_may_be_called(names, wrong):
    assert wrong in fault_of_classes(names) if wrong else fault_of_classes(names) == ""


def test_classes_are_called_as_the_data_says():
    config = Config(classes=("spiral", "S0_b"), class_labels=("", "Lenticular"), class_descriptions=("arms", ""))
    assert [(m.name, m.label, m.description) for m in config.morphologies] == [
        ("spiral", "Spiral", "arms"),
        ("S0_b", "Lenticular", ""),
    ]
    assert Config.from_dict(config.to_dict()) == config
    for wrong in (("a",), ("a", "x" * 101), ("a", "b\n"), ("a", 1)):
        with pytest.raises(UserError, match=r"class_labels is .*: it takes a line for each class, or none"):
            dataclasses.replace(config, class_labels=wrong)
