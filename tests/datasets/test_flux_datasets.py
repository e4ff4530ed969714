"""Datasets of flux: written and read again, refused where they are damaged, and drawn in batches."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.datasets import batches
from galaxies.datasets.batches import DeviceBatches, MappedImages, ResidentImages
from galaxies.datasets.joining import join
from galaxies.datasets.layout import DISPLAY, DataLayout, FluxBand
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.writing import DatasetWriter
from galaxies.images.resampling import dihedral
from galaxies.images.stretch import NOISE_SOFTENING
from galaxies.measure.flux_model import psf_width
from galaxies.training import runs
from tests.conftest import flux_galaxies, write_flux_dataset
from tests.datasets.hand_changes import Changed

CPU = torch.device("cpu")
BANDS = ("g", "r", "Ks")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_flux_dataset(tmp_path_factory.mktemp("flux") / "d", 60, BANDS, psfs=True)


@pytest.fixture(scope="module")
def data(path):
    return PreparedDataset.open(path)


def settings_of(data, *attributes, **more):
    return Config(attributes=attributes, **data.settings(attributes), **more)


def test_flux_is_read_as_it_was_written(data):
    images, values = flux_galaxies(60, BANDS)
    np.testing.assert_array_equal(data.images, images)
    assert data.images.dtype == np.float32 and isinstance(data.images, np.memmap)
    rows = np.array([5, 3])
    np.testing.assert_allclose(data.noise(rows), np.stack([values[f"noise_{b}"] for b in BANDS], 1)[rows], rtol=1e-6)
    np.testing.assert_allclose(data.psf_fwhm(rows)[:, 2], values["psf_fwhm_Ks"][rows], rtol=1e-6)
    np.testing.assert_allclose(data.pixel_scale(rows), 0.2, rtol=1e-6)
    np.testing.assert_allclose(data.psfs(rows).sum((2, 3)), 1, atol=1e-6)
    np.testing.assert_allclose(
        data.attributes(("color_g_r",), rows)[:, 0],
        (values["magnitude_g"] - values["magnitude_r"])[rows],
        atol=1e-5,
    )
    bands = FluxBand("g", 480.0), FluxBand("r", 625.0), FluxBand("Ks", 2150.0)
    assert data.layout == DataLayout("flux", bands, ("galaxy",))


def test_the_manifest_says_what_the_numbers_are(data):
    manifest = json.loads((data.path / "manifest.json").read_text())
    assert (manifest["format_version"], manifest["kind"], manifest["pixel_unit"]) == (2, "flux", "nJy")
    # AB: a nanojansky is 3631 Jy times 10^(-0.4 * 31.4), to a thousandth of a magnitude.
    assert manifest["bands"][0] == {"name": "g", "wavelength_nm": 480.0, "zero_point": 31.4}
    assert -2.5 * np.log10(1e-9 / 3631) == pytest.approx(31.4, abs=1e-3)
    assert manifest["units"]["magnitude_g"] == "mag" and manifest["units"]["size_arcsec"] == "arcsec"
    assert set(manifest["units"]) == set(manifest["attributes"])
    assert manifest["attributes"]["magnitude_g"] == 60 and "noise_g" not in manifest["attributes"]
    assert "psfs.npy" in manifest["sha256"]


def test_one_psf_for_all_is_kept_once(data):
    assert np.load(data.path / "psfs.npy", mmap_mode="r").shape == (1, 3, 15, 15)
    assert set(data.catalogue["psf"]) == {0}


def test_a_psf_of_each_galaxy_is_kept_in_order(tmp_path, data):
    rng = np.random.default_rng(0)
    psfs = rng.random((5, 3, 9, 9), np.float32)
    psfs /= psfs.sum((2, 3), keepdims=True)
    images = np.zeros((6, 3, 64, 64), np.float32)
    with DatasetWriter(tmp_path / "d", 64, 1.0, {}, layout=data.layout) as writer:
        writer.append(images[:3], ["a", "b", "c"], ["galaxy"] * 3, {}, psfs[[0, 1, 1]])
        writer.append(images[:1], ["d"], ["galaxy"], {}, psfs[1:2])
        writer.append(images[:2], ["e", "f"], ["galaxy"] * 2, {}, psfs[[2, 0]])
        with pytest.raises(ValueError, match="PSFs are"):
            writer.append(images[:1], ["g"], ["galaxy"], {}, np.full((1, 3, 5, 5), 1 / 25, np.float32))
    read = PreparedDataset.open(tmp_path / "d")
    np.testing.assert_array_equal(read.psfs(np.arange(6)), psfs[[0, 1, 1, 1, 2, 0]])
    assert len(np.load(tmp_path / "d/psfs.npy", mmap_mode="r")) == 4  # what is the same in a row is kept once


@pytest.mark.parametrize(
    ("images", "wrong"),
    [
        (np.zeros((1, 3, 64, 64), np.uint8), "not (1, 3, 64, 64) float32"),
        (np.zeros((1, 2, 64, 64), np.float32), "not (1, 3, 64, 64) float32"),
        (np.full((1, 3, 64, 64), np.nan, np.float32), "must be finite"),
        (np.full((1, 3, 64, 64), np.inf, np.float32), "must be finite"),
    ],
)
def test_what_is_no_flux_is_not_written(tmp_path, data, images, wrong):
    with pytest.raises(ValueError) as error, DatasetWriter(tmp_path / "d", 64, 1.0, {}, layout=data.layout) as writer:
        writer.append(images, ["a"], ["galaxy"], {})
    assert wrong in str(error.value) and not (tmp_path / "d").exists()


@pytest.mark.parametrize("scale", [0.5, np.nan])
def test_psfs_that_are_none_are_not_written(tmp_path, data, scale):
    images, psf = np.zeros((1, 3, 64, 64), np.float32), np.full((1, 3, 5, 5), scale / 25, np.float32)
    with (
        pytest.raises(ValueError, match="sum is not 1"),
        DatasetWriter(tmp_path / "d", 64, 1.0, {}, layout=data.layout) as w,
    ):
        w.append(images, ["a"], ["galaxy"], {}, psf)


def test_a_layout_that_cannot_be_is_refused():
    for bands in ((), ("g", "g"), ("a_b",), tuple(f"b{k}" for k in range(13))):
        with pytest.raises(ValueError, match="band"):
            DataLayout("flux", tuple(map(FluxBand, bands)))
    with pytest.raises(ValueError, match="class"):
        DataLayout("flux", (FluxBand("g"),), ())


def test_attributes_are_those_of_the_bands(data):
    layout = data.layout
    for name in ("magnitude_Ks", "color_g_Ks", "color_Ks_g", "size_arcsec", "ellipticity", "redshift"):
        assert layout.is_attribute(name), name
    for name in ("magnitude_i", "color_g_i", "color_g_g", "size", "brightness", "color", "vote_count", "noise_g"):
        assert not layout.is_attribute(name), name
    assert not DISPLAY.is_attribute("magnitude_g") and DISPLAY.is_attribute("size")


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda m: m.update(kind="cube"), "kind"),
        (lambda m: m.update(bands=[]), "bands"),
        (lambda m: m["bands"][0].update(name="g r"), "letters and digits"),
        (lambda m: m["bands"].__setitem__(1, m["bands"][0]), "different"),
        (lambda m: m.update(bands=m["bands"][:2], attributes={}), "images.npy has the shape"),
        (lambda m: m.pop("classes"), "classes"),
        (lambda m: m.update(classes=["disc"]), "column morphology"),
        (lambda m: m["attributes"].update(magnitude_i=3), "magnitude_i"),
        (lambda m: m.update(format_version=1), "column morphology|images.npy holds|attributes has"),
        (lambda m: m.update(format_version=3), "format version 3, this program reads 1 and 2"),
        (lambda m: m["sha256"].pop("psfs.npy"), "no psfs.npy"),
    ],
)
def test_a_manifest_changed_by_hand_is_refused(path, tmp_path, change, wrong):
    changed = Changed(path, tmp_path / "d")
    change(changed.manifest)
    with pytest.raises(UserError, match=wrong):
        PreparedDataset.open(changed.finish(False), verify=False)


def test_a_damaged_psf_is_refused(path, tmp_path):
    changed = Changed(path, tmp_path / "d").finish(False)
    np.save(tmp_path / "d/psfs.npy", np.zeros((1, 3, 5, 5), np.float32))
    with pytest.raises(UserError, match=r"psfs\.npy has changed"):
        PreparedDataset.open(changed)


def test_settings_come_from_the_training_galaxies(data):
    config = settings_of(data, "magnitude_r", "color_g_r")
    assert (config.kind, config.bands, config.classes, config.image_size) == ("flux", BANDS, ("galaxy",), 64)
    rows = data.rows("train")
    wanted = NOISE_SOFTENING * np.median(data.noise(rows), 0)
    np.testing.assert_allclose(config.softening, wanted, rtol=1e-3)
    assert config.pixel_scale == pytest.approx(0.2)
    magnitude, color = config.attribute_rows
    values = data.attributes(("magnitude_r", "color_g_r"), rows)
    for row, column in ((magnitude, values[:, 0]), (color, values[:, 1])):
        low, high = np.percentile(column, (0.5, 99.5))
        assert row.low <= low and high <= row.high and row.high - row.low < 1.5 * (high - low)
        assert row.to_unit(row.low) == 0 and row.to_unit(row.high) == 1
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.condition_dim == 1 + 2 + 2


def test_noise_that_no_catalogue_tells_is_measured_in_the_corners(tmp_path, data):
    path = write_flux_dataset(tmp_path / "d", 60, BANDS, tell_noise=False)
    measured = np.array(PreparedDataset.open(path).settings(())["softening"])
    truth = NOISE_SOFTENING * np.median(data.noise(np.arange(60)), 0)
    np.testing.assert_allclose(measured, truth, rtol=0.05)


def test_one_value_gives_a_range_all_the_same(data):
    same = replace(data, catalogue=data.catalogue.assign(redshift=0.5))
    low, high = same.settings(("redshift",))["attribute_ranges"]
    assert low < 0.5 < high


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"softening": (1.0, 2.0)}, "softening"),
        ({"softening": (1.0, 2.0, 0.0)}, "softening"),
        ({"pixel_scale": 0.0}, "pixel_scale"),
        ({"bands": ("g", "r", "r")}, "bands"),
        ({"classes": ()}, "classes"),
        ({"attribute_ranges": (1.0,)}, "attribute_ranges"),
        ({"attribute_ranges": (1.0, 1.0)}, "attribute_ranges"),
        ({"attributes": ("magnitude_i",)}, "needs band i"),
        ({"kind": "display"}, "display pictures have r, g, b"),
    ],
)
def test_settings_of_data_that_cannot_be_are_refused(data, changes, wrong):
    config = settings_of(data, "magnitude_r")
    with pytest.raises(UserError, match=wrong):
        replace(config, **changes)


def test_what_a_column_may_hold_is_what_a_galaxy_can_have(tmp_path, data):
    layout = data.layout
    for name, right, wrong in (
        ("noise_g", 0.0, -1.0),
        ("pixel_scale", 0.03, 0.0),
        ("psf_fwhm_r", 1e-3, -0.1),
        ("masked", 1.0, 1.1),
        ("flag", 0.0, -1.0),
        ("ellipticity", 0.0, 1.1),
        ("concentration", 12.0, -1.0),
        ("magnitude_r", 44.0, -9999.0),
        ("redshift", 9.0, 0.0),
        ("gini", 0.0, 1.5),
    ):
        low, high = layout.limits_of(name)
        assert low < right <= high and not low < wrong <= high, name
    assert layout.limits_of("true_magnitude_g") == (-np.inf, np.inf)
    images = np.zeros((1, 3, 64, 64), np.float32)
    writer = DatasetWriter(tmp_path / "d", 64, 1.0, {}, extra_columns=("offset",), layout=layout)
    with pytest.raises(UserError, match="magnitude_r of 'a' is -9999, and no galaxy has any but"), writer:
        writer.append(images, ["a"], ["galaxy"], {"magnitude_r": np.array([-9999.0]), "offset": np.array([-1e9])})


def test_displays_have_no_settings_of_flux(dataset_path):
    settings = PreparedDataset.open(dataset_path).settings(("size",))
    assert settings == {"image_size": 64, "kind": "display", "bands": ("r", "g", "b"), "classes": DISPLAY.classes}
    assert Config(**settings) == Config() and DISPLAY.band_columns == () and DISPLAY.columns[-1] == "pixel_scale"


def test_batches_on_the_device_and_from_the_file_are_alike(data, monkeypatch):
    config = settings_of(data, "magnitude_r", batch_size=8, augment=False)
    resident = DeviceBatches(data, "train", config, CPU)
    assert isinstance(resident.store, ResidentImages) and resident.store.images.dtype == torch.float16
    monkeypatch.setattr(batches, "_RESIDENT_BYTES", 0)
    mapped = DeviceBatches(data, "train", config, CPU)
    assert isinstance(mapped.store, MappedImages)
    resident.start_epoch()
    mapped.start_epoch()
    one, two = resident.next_batch().images, mapped.next_batch().images
    assert one.dtype == two.dtype == torch.float32
    # Half precision: 10 bits of a number between 1 and 2 in size, rounded.
    assert 0 < (one - two).abs().max() <= 2**-11 * 1.001 * two.abs().max().clamp_min(1)


def test_photometry_does_not_notice_half_precision(data):
    """The errors that rounding makes are far below what the noise of the pixels does to the total light."""
    config = settings_of(data, "magnitude_r", batch_size=8)
    rows = data.rows("train")
    pixels = batches.Pixels(config, CPU)
    kept = pixels.resident(data.images, rows, CPU)
    flux = pixels._stretch.flux(pixels.for_networks(kept)).double().numpy()
    truth = np.asarray(data.images[rows], np.float64)
    noise = data.noise(rows)[:, :, None, None] * np.ones_like(truth)
    aperture = np.hypot(*(np.indices((64, 64)) - 31.5)) < 20
    error = ((flux - truth) * aperture).sum((2, 3))
    of_noise = np.sqrt((noise**2 * aperture).sum((2, 3)))
    light = (truth * aperture).sum((2, 3))
    assert np.abs(error / of_noise).max() < 0.2 and np.abs(error / light).max() < 1e-3


def test_flux_is_joined_with_its_like_alone(path, tmp_path, dataset_path):
    other = write_flux_dataset(tmp_path / "more", 20, BANDS, seed=1, psfs=True)
    writer = join([path, other], tmp_path / "all", "")
    joined = PreparedDataset.open(tmp_path / "all")
    assert writer.manifest["count"] == len(joined.images) == 80 and joined.layout.band_names == BANDS
    assert joined.psfs(np.arange(80)).shape == (80, 3, 15, 15)
    np.testing.assert_array_equal(joined.images[60:], PreparedDataset.open(other).images)
    bands = write_flux_dataset(tmp_path / "two", 20, ("g", "r"), seed=2)
    for stranger in (bands, dataset_path):
        with pytest.raises(UserError, match=r"only datasets alike can be joined|prepare them alike first"):
            join([path, stranger], tmp_path / "none", "")


def test_the_usual_psf_is_that_of_the_median_width(tmp_path):
    images, values = flux_galaxies(9, BANDS)
    values["psf_fwhm_g"] = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3])
    values |= {"psf_fwhm_r": values["psf_fwhm_g"], "psf_fwhm_Ks": np.full(9, np.nan)}
    psfs = np.zeros((9, 3, 81, 81), np.float32)
    beside = np.linspace(0.01, 0.2, 9)
    psfs[:, :, 40, 41] = beside[:, None]
    psfs[:, :, 0, 0] = 0.3  # beyond what is kept
    psfs[:, :, 40, 40] = 0.7 - beside[:, None]
    layout = DataLayout("flux", tuple(FluxBand(name) for name in BANDS), ("galaxy",))
    with DatasetWriter(tmp_path / "d", 64, 1.0, {"source": "test", "rule": "none"}, layout=layout) as writer:
        writer.append(images, [str(k) for k in range(9)], ["galaxy"] * 9, values, psfs)
    data = PreparedDataset.open(tmp_path / "d")
    rows = data.rows("train")
    widths = values["psf_fwhm_g"][rows]
    typical = rows[np.argmin(np.abs(widths - np.median(widths)))]
    usual = data.usual_psfs("train")
    assert usual.shape == (3, 63, 63) and usual.dtype == np.float32
    np.testing.assert_allclose(usual.sum((1, 2)), 1, atol=1e-6)
    np.testing.assert_allclose(usual[:, 31, 32], beside[typical] / 0.7, rtol=1e-5)
    scale = float(np.median(data.pixel_scale(rows)))
    assert data.seen_widths("train") == pytest.approx((psf_width(torch.from_numpy(usual)[None])[0] * scale).tolist())
    assert PreparedDataset.open(write_flux_dataset(tmp_path / "e", 8, BANDS)).usual_psfs("train") is None


def test_the_usual_width_counts_wings_of_a_shape_that_the_manifest_tells(tmp_path):
    plain = PreparedDataset.open(write_flux_dataset(tmp_path / "e", 8, BANDS))
    nominal = plain.settings(())["psf_fwhm"]
    seen = plain.seen_widths("train")
    assert [w for w in seen if w == w] == pytest.approx([w for w in nominal if w > 0])
    bands = [{"name": name, "electrons_per_njy": 1.0} for name in BANDS]
    plain.manifest["telescope"] = {"psf": "kolmogorov", "obscuration": 0.0, "bands": bands}
    assert plain.seen_widths("train") == pytest.approx([1.083 * w for w in seen], rel=2e-3, nan_ok=True)


def test_what_was_measured_without_the_wings_of_the_psf_is_told(tmp_path, capsys):
    shapes = {"telescope": {"psf": "kolmogorov", "obscuration": 0.0, "bands": []}}
    shapes["telescope"]["bands"] = [{"name": name, "electrons_per_njy": 1.0} for name in ("g", "r")]
    for told, images, remarked in (({}, False, False), (shapes, False, True), ({}, True, True)):
        data = PreparedDataset.open(write_flux_dataset(tmp_path / f"{len(told)}{images}", 24, ("g", "r"), psfs=images))
        data.manifest.update(told)
        assert data.photometry == 3 and data.remark() is None
        del data.manifest["photometry"]  # of before
        assert data.remark().startswith("radii in") == remarked
        runs.print_settings(Config(), data)
        assert capsys.readouterr().out.count("note: radii in ") == remarked
        data.manifest["photometry"] = 2
        assert data.remark().startswith("ellipticities of faint galaxies in")


def test_joined_values_are_as_those_that_were_measured_first(tmp_path):
    paths = [write_flux_dataset(tmp_path / name, 24, ("g", "r"), seed=seed) for seed, name in enumerate("ab")]
    manifest = json.loads((paths[1] / "manifest.json").read_text())
    del manifest["photometry"]
    (paths[1] / "manifest.json").write_text(json.dumps(manifest))
    join(paths, tmp_path / "joined", "join")
    assert PreparedDataset.open(tmp_path / "joined").photometry == 1


def test_exposures_are_those_of_each_galaxy_and_as_usual_where_unknown(tmp_path):
    path = write_flux_dataset(tmp_path / "told", 60, ("g", "r"), psfs=True)
    data = PreparedDataset.open(path)
    settings = data.settings(("magnitude_r",))
    assert settings["psf_pixels"] == 15
    config = Config(attributes=("magnitude_r",), **settings)
    rows = data.rows("train")[:7]
    found = data.exposures(rows, config)
    assert found.noise.numpy() == pytest.approx(data.noise(rows))
    assert found.psf_fwhm.numpy() == pytest.approx(data.psf_fwhm(rows))
    assert found.pixel_scale.tolist() == pytest.approx([0.2] * 7)
    assert found.psfs.shape == (7, 2, 15, 15) and found.psfs.sum((2, 3)).numpy() == pytest.approx(1)

    silent = write_flux_dataset(tmp_path / "silent", 60, ("g", "r"), tell_noise=False)
    data = PreparedDataset.open(silent)
    config = Config(attributes=("magnitude_r",), **data.settings(("magnitude_r",)))
    found = data.exposures(data.rows("train")[:3], config)
    assert found.psfs is None and config.psf_pixels == 0
    assert found.noise.numpy() == pytest.approx(np.tile(np.array(config.softening) / 2, (3, 1)), rel=1e-6)
    # The noise of the frames, which the catalogue does not tell, is 20 and 40 nJy.
    assert found.noise[0].tolist() == pytest.approx([20, 40], rel=0.1)


def test_a_batch_says_how_its_galaxies_were_observed_and_turns_their_psfs_with_them(tmp_path):
    path = write_flux_dataset(tmp_path / "told", 60, ("g", "r"), psfs=True)
    data = PreparedDataset.open(path)
    config = Config(attributes=("magnitude_r",), batch_size=16, **data.settings(("magnitude_r",)))
    batches = DeviceBatches(data, "train", config, torch.device("cpu"))
    psfs = batches._exposures.psfs
    psfs[:, :, 7, 10] += 0.5 * psfs.max()  # one that has a direction
    batches.start_epoch()
    turns = batches._turns[:16]
    order = batches._order[:16]
    batch = batches.next_batch()
    assert batch.exposure.noise.numpy() == pytest.approx(data.noise(data.rows("train")[order.numpy()]))
    for image, turn, place in zip(batch.exposure.psfs, turns, order, strict=True):
        torch.testing.assert_close(image, dihedral(psfs[place][None], turn[None])[0])
    assert len(turns.unique()) > 3
    off = replace(config, telescope="off")
    batches = DeviceBatches(data, "train", off, torch.device("cpu"))
    batches.start_epoch()
    assert batches.next_batch().exposure is None and batches.some_exposures(4) is None


def test_galaxies_without_a_psf_get_the_usual_one_and_none_is_wider_than_the_galaxies(tmp_path):
    images, values = flux_galaxies(40, ("g",), side=64)
    psfs = np.zeros((40, 1, 71, 71), np.float32)
    psfs[:, 0, 35, 35] = 1
    psfs[np.arange(40), 0, 35, 36] = 0.01 * np.arange(1, 41)
    psfs /= psfs.sum((2, 3), keepdims=True)
    values["psf_fwhm_g"] = np.linspace(0.5, 0.9, 40)
    layout = DataLayout("flux", (FluxBand.named("g"),), ("galaxy",))
    ids = [f"galaxy {k}" for k in range(40)]
    with DatasetWriter(tmp_path / "d", 64, 1.0, {"source": "test", "rule": "none"}, layout=layout) as writer:
        writer.append(images, ids, ["galaxy"] * 40, values, psfs)
        writer.append(images[:1] + 1, ["without"], ["galaxy"], {k: v[:1] for k, v in values.items()})
    data = PreparedDataset.open(tmp_path / "d")
    settings = data.settings(("magnitude_g",))
    assert settings["psf_pixels"] == 63  # odd, as its middle is a pixel
    found = data.exposures(np.arange(41), Config(attributes=("magnitude_g",), **settings)).psfs.numpy()
    np.testing.assert_allclose(found[:40], psfs[:, :, 4:-4, 4:-4], atol=1e-7)
    np.testing.assert_array_equal(found[40], data.usual_psfs("train"))
    rows = data.rows("train")
    rows = rows[rows < 40]
    usual = rows[np.abs(values["psf_fwhm_g"][rows] / np.median(values["psf_fwhm_g"][rows]) - 1).argmin()]
    np.testing.assert_array_equal(found[40], found[usual])
