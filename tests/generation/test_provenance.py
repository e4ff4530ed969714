"""How files of generated galaxies are called: as the page calls them, each once, and short enough for any disk."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from config_physics import ATTRIBUTES, MORPHOLOGY_NAMES, Config
from galaxies.common.version import SOFTWARE, SYNTHETIC
from galaxies.generation.fits_files import ImageFacts
from galaxies.generation.provenance import file_stem, file_stems, grid_texts, png_texts
from galaxies.generation.requests import Requests

NAN = math.nan


def asked(*rows, angles=None, classes=None):
    """Return requests of (size, redshift, seed) each, spirals unless said otherwise."""
    values = torch.tensor([[size, redshift] for size, redshift, _ in rows])
    chosen = torch.tensor([MORPHOLOGY_NAMES.index(name) for name in classes or ["spiral"] * len(rows)])
    turned = None if angles is None else torch.tensor(angles)
    return Requests(chosen, values, [seed for *_, seed in rows], turned)


CONFIG = Config(attributes=("size", "redshift"))


def test_names_say_class_values_seed_and_model():
    requests = asked((0.12, NAN, 7), (NAN, 0.05, 8), (NAN, NAN, 9), classes=["spiral", "edge-on", "merger"])
    assert file_stems(requests, CONFIG) == [
        *("spiral_size-0.12_seed-7_gan", "edge-on_redshift-0.05_seed-8_gan", "merger_seed-9_gan")
    ]
    assert file_stems(requests, Config(attributes=CONFIG.attributes, diffusion=True))[0].endswith("_seed-7_diffusion")
    turned = asked((0.12, NAN, 7), (0.12, NAN, 7), angles=[30.0, NAN])
    assert file_stems(turned, CONFIG)[0] == "spiral_size-0.12_position-angle-30_seed-7_gan"


def test_no_two_galaxies_share_a_name():
    requests = asked((0.1, NAN, 1), (0.1, NAN, 1), (0.2, NAN, 1), (0.1, NAN, 1))
    stem = "spiral_size-0.1_seed-1_gan"
    assert file_stems(requests, CONFIG) == [stem, f"{stem}_2", "spiral_size-0.2_seed-1_gan", f"{stem}_3"]
    twins = Config(attributes=("size", "redshift"), classes=("disc", "Disc"))  # one name on Windows and macOS
    spelt = Requests(torch.tensor([0, 1]), torch.full((2, 2), NAN), [5, 5])
    assert file_stems(spelt, twins) == ["disc_seed-5_gan", "Disc_seed-5_gan_2"]


def test_a_name_has_room_on_any_disk():
    values = dict.fromkeys(ATTRIBUTES, 1 / 3)
    stem = file_stem("spiral", values, 2**31 - 1, "gan")
    assert len(stem) <= 180 and stem.startswith("spiral_size-0.333333_brightness-0.333333")
    assert stem.endswith("_seed-2147483647_gan")
    short = file_stem("spiral", {"size": 0.1}, 3, "gan")
    assert short == "spiral_size-0.1_seed-3_gan"


def test_a_picture_says_what_was_asked_and_measured():
    row = pd.Series({"seed": 7, "morphology": "spiral", "requested_size": 0.12, "measured_size": 0.13, "flag": 0})
    row = pd.concat([row, pd.Series({"requested_redshift": NAN, "set_by_user": "size", "support": "unusual"})])
    row["measured_gini"] = 0.5  # beside the attributes of the run
    facts = ImageFacts(origin={"model": "GAN", "step": "9"})
    texts = png_texts(row, [ATTRIBUTES["size"], ATTRIBUTES["redshift"]], facts, "2026-11-27")
    assert texts == {
        **{"Title": "Synthetic galaxy: spiral, seed 7", "Description": SYNTHETIC, "Software": SOFTWARE},
        **{"Creation Time": "2026-11-27", "Model": "GAN, step 9", "Class": "spiral", "Seed": "7"},
        **{"Planes": "R, G, B, asinh-stretched display values", "Set by user": "size", "Support": "unusual"},
        **{"requested size": "0.12 frame widths", "measured size": "0.13 frame widths", "measured gini": "0.5"},
        "Flag of measurement": "0",
    }


def test_a_grid_says_whose_galaxies_it_shows():
    facts = ImageFacts(origin={"model": "GAN", "run": "first", "source": "SDSS", "credit": "us"})
    texts = grid_texts(9, facts)
    assert texts["Title"] == "9 synthetic galaxies" and texts["Model"] == "GAN, run first"
    assert (texts["Trained on"], texts["Copyright"]) == ("SDSS", "us") and "Creation Time" not in texts
    flux = grid_texts(1, ImageFacts("flux", ("g", "r")))
    assert flux["Planes"] == "composite of g, r" and "Copyright" not in flux


@pytest.mark.parametrize("name", ["a/b", "..", "x y", "con:1", "é"])
def test_no_class_leads_out_of_the_folder(name):
    stem = file_stem(name, {}, 1, "gan")
    assert set(stem) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_") and "/" not in stem
