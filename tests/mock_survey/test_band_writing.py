"""The mock survey in any bands as a prepared dataset: files, columns, manifest, and the command that asks."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

import prepare_data
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.writing import split_of
from galaxies.mock_survey import band_observation, band_population, band_writing
from galaxies.mock_survey.band_observation import BandSurvey
from galaxies.mock_survey.band_population import Frame
from galaxies.telescope.surveys import find_survey
from tests.conftest import noting_threads

pytest.importorskip("surveycodex")
COMMAND = ["simulated", "--kind", "flux", "--survey", "lsst", "--bands", "z,g", "--count", "20", "--seed", "4"]


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """Let 4 galaxies share their random streams instead of 64, of which all are drawn for one."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(band_observation, "BLOCK", 4)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("mock") / "lsst"
    prepare_data.main([*COMMAND, "--out", str(out)])
    return out


@pytest.fixture(scope="module")
def survey():
    return BandSurvey(4, Frame(find_survey("LSST", ["z", "g"]), 64, 0.2), with_intrinsic=lambda name: True)


@pytest.fixture(scope="module")
def batch(survey):
    return next(survey.batches(20, 5))


def test_the_images_are_those_of_the_survey(folder, batch):
    data = PreparedDataset.open(folder)
    assert data.layout.kind == "flux"
    assert data.layout.band_names == ("z", "g")
    assert data.layout.bands[1].wavelength_nm == pytest.approx(486.412)
    np.testing.assert_array_equal(data.images, batch.images)
    assert data.catalogue["object_id"].tolist() == batch.object_ids
    assert data.catalogue["morphology"].tolist() == batch.morphologies
    rows = np.arange(20)
    np.testing.assert_allclose(data.noise(rows), batch.noise, rtol=1e-5)
    np.testing.assert_allclose(data.psf_fwhm(rows), batch.psf_fwhm, rtol=1e-5)
    assert (data.pixel_scale(rows) == np.float32(0.2)).all()


def test_neither_images_nor_catalogue_depend_on_the_number_of_threads(folder, tmp_path, monkeypatch):
    threads = []  # of which each small step has one, since not every step shows it in so few galaxies
    for module, name in ((band_writing, "measure_flux"), (band_population, "draw_blocks")):
        monkeypatch.setattr(module, name, noting_threads(getattr(module, name), threads))
    before = torch.get_num_threads()
    torch.set_num_threads(3)  # where planes are split otherwise, and powers at the ends of parts rounded otherwise
    try:
        few = [*COMMAND, "--out", str(tmp_path / "few")]
        few[few.index("--count") + 1] = "12"
        prepare_data.main(few)
    finally:
        torch.set_num_threads(before)
    assert len(threads) > 6 and set(threads) == {1}
    many, few = (PreparedDataset.open(place) for place in (folder, tmp_path / "few"))
    np.testing.assert_array_equal(few.images, many.images[:12])
    pd.testing.assert_frame_equal(few.catalogue, many.catalogue[:12], check_exact=True)
    light, whole = (np.load(place / "intrinsic.npy") for place in (tmp_path / "few", folder))
    np.testing.assert_array_equal(light, whole[: len(light)])
    assert len(light)


def test_the_catalogue_has_the_truth_and_what_was_measured(folder, batch):
    table = pd.read_csv(folder / "catalogue.csv", dtype={"object_id": str})
    names = ("redshift", "stellar_mass", "true_magnitude_z", "true_half_light_radius", "true_position_angle")
    for name in (*names, "true_magnitude_g", "true_inclination"):
        np.testing.assert_allclose(table[name], batch.truth[name], rtol=1e-5)
    assert table["inclination"].equals(table["true_inclination"])
    data = PreparedDataset.open(folder)
    assert data.settings(("inclination",))["attribute_ranges"][1] >= 90
    assert np.isnan(data.attributes(("inclination",), np.arange(4))).tolist() == [[False], [True], [True], [False]]
    alone = table[(table["morphology"] != "merger") & (table["flag"] == 0)]
    for name in ("z", "g"):
        assert (alone[f"magnitude_{name}"] - alone[f"true_magnitude_{name}"]).abs().median() < 0.05
    assert (alone["color_z_g"] - (alone["magnitude_z"] - alone["magnitude_g"])).abs().max() < 1e-4
    assert (alone["size_arcsec"] / alone["true_half_light_radius"] - 1).abs().median() < 0.1
    # 4.5 kpc an arcsecond at redshift 0.3, 1.84 at 0.1 (H0 = 70, Omega_m = 0.3).
    scale = np.interp(alone["redshift"], [0.1, 0.3], [1.844, 4.454])
    near = alone["redshift"].between(0.1, 0.3)
    assert (alone["size_kpc"] / alone["size_arcsec"] / scale - 1)[near].abs().max() < 0.08
    assert (table["masked"] == 0).all()


def test_the_light_before_the_telescope_is_kept_for_the_test_split(folder, batch):
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    kept = manifest["intrinsic"]
    assert (kept["split"], kept["pixels_a_pixel"], kept["pixel_unit"]) == ("test", 2, "nJy")
    rows = [row for row, name in enumerate(batch.object_ids) if split_of(name) == "test"]
    light = np.load(folder / kept["file"], mmap_mode="r")
    assert 1 <= len(light) < 12
    np.testing.assert_allclose(light, batch.intrinsic[rows], rtol=1e-4, atol=1e-2)
    assert light.dtype == np.float32


def test_another_survey_observes_the_same_galaxies(folder, tmp_path):
    hsc = [{"lsst": "HSC"}.get(word, word) for word in COMMAND]
    prepare_data.main([*hsc, "--chosen-by", "LSST", "--out", str(tmp_path / "hsc")])
    one, other = PreparedDataset.open(folder), PreparedDataset.open(tmp_path / "hsc")
    for name in ("object_id", "redshift", "true_axis_ratio", "true_position_angle", "petro_r50_kpc"):
        assert one.catalogue[name].equals(other.catalogue[name]), name
    # Each fine pixel gathers for itself.
    np.testing.assert_allclose(other.catalogue["true_magnitude_z"], one.catalogue["true_magnitude_z"], atol=0.15)
    assert (other.catalogue["pixel_scale"] == 0.168).all()
    widths = np.array([[band.psf_fwhm for band in find_survey(name, ["z", "g"]).bands] for name in ("HSC", "LSST")])
    blur = other.psf_fwhm(np.arange(20)) / one.psf_fwhm(np.arange(20))  # the same air over another width
    np.testing.assert_allclose(blur, np.broadcast_to(widths[0] / widths[1], (20, 2)), rtol=1e-4)
    manifest = json.loads((tmp_path / "hsc" / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["telescope"]["survey"], manifest["chosen_by"]["survey"]) == ("HSC", "LSST")
    assert manifest["chosen_by"]["pixel_scale"] == 0.2


def test_the_manifest_says_what_the_telescope_was(folder):
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    telescope = manifest["telescope"]
    assert (telescope["survey"], telescope["pixel_scale"], telescope["psf"]) == ("LSST", 0.2, "kolmogorov")
    assert telescope["smallest"] == 1
    z = telescope["bands"][0]
    assert (z["name"], z["zero_point"], z["exposure_s"], z["psf_fwhm"]) == ("z", 27.42, 4800, 0.77)
    assert z["electrons_per_njy"] == pytest.approx(4800 * 10 ** (-0.4 * (31.4 - 27.42)))
    assert manifest["units"]["magnitude_z"] == "mag"
    assert manifest["command_line"].startswith("prepare_data.py simulated --kind flux")


def test_a_dataset_is_replaced_whole(folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="exists: choose another --out, or replace it with --overwrite"):
        prepare_data.main([*COMMAND, "--out", str(folder)])

    class Broken(BandSurvey):
        def batches(self, count, blocks_at_once=1):
            yield from super().batches(2)
            raise KeyboardInterrupt

    monkeypatch.setattr(band_writing, "BandSurvey", Broken)
    with pytest.raises(KeyboardInterrupt):
        prepare_data.main([*COMMAND, "--out", str(folder), "--overwrite"])
    assert len(PreparedDataset.open(folder).images) == 20
    assert sorted(path.name for path in folder.iterdir()) == [
        *("catalogue.csv", "images.npy", "intrinsic.npy", "manifest.json"),
    ]
    assert not [path for path in folder.parent.iterdir() if path != folder]


def test_larger_pixels_hold_more_sky(tmp_path):
    out = tmp_path / "coarse"
    coarse = [*COMMAND, "--pixel-scale", "0.4", "--out", str(out)]
    coarse[coarse.index("--count") + 1] = "4"
    prepare_data.main(coarse)
    data = PreparedDataset.open(out)
    z = find_survey("LSST", ["z"]).bands[0]
    assert (data.pixel_scale(np.arange(4)) == np.float32(0.4)).all()
    assert np.median(data.noise(np.arange(4))[:, 0]) == pytest.approx(2 * z.sky_noise(0.2), rel=0.15)
    assert np.load(out / "intrinsic.npy").shape[1:] == (2, 128, 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "flux", "--survey", "GALEX"], "no survey is called 'GALEX': choose from CFHTLS, COSMOS"),
        (["--kind", "flux", "--bands", "g,K"], "LSST has no band 'K': choose from u, g, r, i, z, y"),
        (["--kind", "flux", "--bands", "g,g"], "argument --bands: .g. stands twice in .g,g."),
        (["--kind", "flux", "--as-gz2", "files"], "--as-gz2 writes colour pictures"),
        (
            ["--kind", "flux", "--pixel-scale", "0.09"],
            r"LSST has no galaxies for 64 pixels of 0\.09 arcseconds: choose --pixel-scale from 0\.095 to 0\.8",
        ),
        (["--kind", "flux", "--pixel-scale", "0.81", "--bands", "r"], r"choose --pixel-scale from 0\.095 to 0\.8"),
        (["--survey", "LSST"], "--survey is for flux: add --kind flux"),
        (["--smallest", "0.5"], "--smallest is for flux: add --kind flux"),
        (["--chosen-by", "LSST"], "--chosen-by is for flux: add --kind flux"),
        (["--kind", "flux", "--bands", "g", "--chosen-by", "Euclid_VIS"], "Euclid_VIS has no band 'g': choose from IE"),
        (["--kind", "flux", "--smallest", "1.5"], "argument --smallest: .*1.5"),
        (["--bands", "g"], "--bands is for flux"),
        (["--pixel-scale", "0.3"], "--pixel-scale is for flux"),
    ],
)
def test_what_does_not_go_together_is_said_in_a_sentence(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        prepare_data.main(["simulated", *options, "--count", "4", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [["--bands", "g,,r"], ["--pixel-scale", "0"], ["--pixel-scale", "nan"]])
def test_what_is_no_value_of_an_option_is_refused(options, tmp_path, capsys):
    with pytest.raises((SystemExit, UserError)):
        prepare_data.main(["simulated", "--kind", "flux", *options, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_run_is_told_the_survey_s_photons_and_shape_of_psf(folder, survey):
    settings = PreparedDataset.open(folder).settings(("inclination",))
    assert settings["photons"] == pytest.approx([b.photon_variance for b in survey.frame.survey.bands], rel=1e-3)
    assert settings["psf_profile"] == "kolmogorov" and settings["psf_pixels"] == 0
    assert settings["wavelengths"] == pytest.approx([870.164, 486.412])
