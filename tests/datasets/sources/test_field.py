from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from galaxies.datasets.field import detection
from prepare_data import main
from tests.datasets.field.made_fields import FWHM, HALF_LIGHT, make_field, picture, write_frame

SCALE = 0.3
NOISE = (10.0, 20.0)
PSF = (1.3, 1.6)
FIELD = make_field()
ZERO_POINTS = (31.4, 25.0)  # the second frame is in counts of 10^(0.4 (31.4 - 25)) nJy


def write_frames(folder, field=FIELD, level=(0.0, 300.0), header=None):
    """Write two bands of different depth, blur, unit and sky; return their paths."""
    files = []
    for k, band in enumerate("gr"):
        image = picture(field, k, PSF[k], NOISE[k], seed=k) + level[k]
        files.append(write_frame(folder / f"{band}.fits", image / 10 ** (0.4 * (31.4 - ZERO_POINTS[k])), header))
    return files


def prepare(out, files, *options, bands="g,r", zero_point="31.4,25"):
    arguments = ["field", "--frames", *map(str, files), "--out", str(out)]
    arguments += ["--bands", bands] if bands else []
    arguments += ["--zero-point", zero_point] if zero_point else []
    main([*arguments, "--sky-box", "60", *options])
    return read(out)


def read(out):
    return (
        pd.read_csv(out / "catalogue.csv"),
        np.load(out / "images.npy"),
        json.loads((out / "manifest.json").read_text()),
    )


def nearest(catalogue, field=FIELD):
    """Return for each row the index of the true source, and its distance in pixels."""
    x, y = catalogue["x"].to_numpy() - 1, catalogue["y"].to_numpy() - 1
    apart = np.hypot(x[:, None] - field.x, y[:, None] - field.y)
    return apart.argmin(1), apart.min(1)


def whole(field=FIELD, margin=33):
    """Return which sources lie far enough inside for a cutout."""
    side = field.shape[0]
    return (np.minimum(field.x, field.y) > margin) & (np.maximum(field.x, field.y) < side - margin)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    return write_frames(tmp_path_factory.mktemp("frames"))


@pytest.fixture(scope="module")
def out(frames, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "made"
    prepare(folder, frames, "--pixel-scale", str(SCALE))
    return folder


@pytest.fixture(scope="module")
def prepared(out):
    return read(out)


def test_finds_the_galaxies_and_leaves_the_stars(prepared):
    catalogue, _, manifest = prepared
    index, apart = nearest(catalogue)
    assert sorted(index) == np.flatnonzero(~FIELD.is_star & whole()).tolist()
    assert apart.max() < 0.25
    assert manifest["sources"]["stars"] == FIELD.is_star.sum()
    assert manifest["classes"] == ["galaxy"]


def test_light_size_and_colour_are_the_true_ones(prepared):
    catalogue, _, _ = prepared
    index, _ = nearest(catalogue)
    magnitude = 31.4 - 2.5 * np.log10(FIELD.flux[index])
    for k, band in enumerate("gr"):
        assert np.abs(catalogue[f"magnitude_{band}"] - magnitude[:, k]).max() < 0.06
    assert np.abs(catalogue["color_g_r"] - (magnitude[:, 0] - magnitude[:, 1])).max() < 0.05
    assert np.allclose(catalogue["size_arcsec"], HALF_LIGHT * FIELD.sigma[index] * SCALE, rtol=0.1)


def test_noise_and_blur_of_each_band_are_measured(prepared):
    catalogue, images, _ = prepared
    for k, band in enumerate("gr"):
        assert np.allclose(catalogue[f"noise_{band}"], NOISE[k], rtol=0.06)
        # The pixel is not integrated over in the made field, so that it adds nothing.
        assert np.allclose(catalogue[f"psf_fwhm_{band}"], FWHM * PSF[k] * SCALE, rtol=0.02)
        assert abs(np.median(images[:, k])) < 0.2 * NOISE[k]  # sky of 300 taken off
    assert (catalogue["pixel_scale"] == SCALE).all()


def test_psf_images_are_those_of_the_stars(prepared, out):
    catalogue, _, manifest = prepared
    psfs = np.load(out / "psfs.npy")
    assert (catalogue["psf"] == 0).all()
    assert psfs.shape[:2] == (1, 2)
    axis = np.arange(psfs.shape[-1]) - psfs.shape[-1] // 2
    for k, sigma in enumerate(PSF):
        assert manifest["stars_of_psf"]["gr"[k]] >= 20
        true = np.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / sigma**2) / (2 * np.pi * sigma**2)
        assert np.abs(psfs[0, k] - true).sum() < 0.06
        assert np.isclose(psfs[0, k].sum(), 1, atol=1e-5)


def test_cutouts_are_centred_and_keep_their_neighbours(prepared):
    catalogue, images, _ = prepared
    index, _ = nearest(catalogue)
    frame = picture(FIELD, 0, PSF[0], NOISE[0], seed=0)
    for row, k in enumerate(index.tolist()):
        x0, y0 = round(catalogue["x"][row] - 1 - 31.5), round(catalogue["y"][row] - 1 - 31.5)
        assert max(abs(FIELD.x[k] - x0 - 31.5), abs(FIELD.y[k] - y0 - 31.5)) < 0.75
        assert np.abs(images[row, 0] - frame[y0 : y0 + 64, x0 : x0 + 64]).max() < 0.4 * NOISE[0]


def test_sections_leave_no_seams(prepared, frames, tmp_path, monkeypatch):
    read_areas = []
    monkeypatch.setattr(detection, "SECTION_PX", (96, 128))
    monkeypatch.setattr(detection, "OVERLAP_PX", 48)
    from galaxies.datasets.field.frames import Frame

    values = Frame.values
    monkeypatch.setattr(Frame, "values", lambda self, area: (read_areas.append(area.shape), values(self, area))[1])
    catalogue, _, _ = prepare(tmp_path / "out", frames, "--pixel-scale", str(SCALE))
    one = prepared[0].set_index(prepared[0]["x"].round(1)).sort_index()
    several = catalogue.set_index(catalogue["x"].round(1)).sort_index()
    assert np.abs(one[["x", "y"]].to_numpy() - several[["x", "y"]].to_numpy()).max() < 0.05
    assert np.allclose(one["magnitude_r"], several["magnitude_r"], atol=0.01)
    # Nothing larger than a section with its margins is ever read, whatever the size of the frame.
    assert max(height * width for height, width in read_areas) <= (96 + 2 * 48) * (128 + 2 * 48)
