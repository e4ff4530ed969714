"""Validation of flux: any bands and classes, measured in physical units, judged, compared and shown."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from galaxies.common.errors import UserError
from galaxies.compute.device import Engine
from galaxies.datasets.prepared import PreparedDataset
from galaxies.measure import with_statmorph
from galaxies.measure.photometry import MISSING_PIXELS
from galaxies.validation import judge
from galaxies.validation.comparison import groups_of, look_for_copies, power_ratio
from galaxies.validation.feature_spaces import RandomFeatures, add_noise, blur
from galaxies.validation.judge import Judge, JudgeNetwork, train_judge
from galaxies.validation.neighbours import nearest_training
from galaxies.validation.real_or_generated import RealOrGenerated, groups_with_pairs
from galaxies.validation.report.cells import LeftOut
from galaxies.validation.subject import match
from galaxies.validation.targets import verdicts
from galaxies.validation.viewing import DISPLAY_VIEWER, Viewer, statistics_of
from tests.conftest import write_flux_dataset
from tests.validation.reports import report_of

CPU = torch.device("cpu")
BANDS = ("g", "Ks")


@pytest.fixture(scope="module")
def survey(tmp_path_factory) -> PreparedDataset:
    """Galaxies of one class in two bands, of which 120 are the judge's."""
    path = write_flux_dataset(tmp_path_factory.mktemp("flux") / "survey", 150, BANDS, side=32)
    data = PreparedDataset.open(path)
    splits = np.where(np.arange(150) < 120, "judge", "test")
    return dataclasses.replace(data, catalogue=data.catalogue.assign(split=splits))


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> PreparedDataset:
    """A few galaxies of three classes on 64 pixels."""
    path = write_flux_dataset(tmp_path_factory.mktemp("flux") / "large", 40, BANDS, ("a", "b", "c"), seed=1)
    return PreparedDataset.open(path)


def images_of(data: PreparedDataset, rows=slice(None)) -> torch.Tensor:
    return torch.from_numpy(np.array(data.images[rows]))


# How images are looked at


def test_measured_are_physical_units(large):
    viewer = Viewer.of_dataset(large)
    # Known galaxies without their PSF: the fixture's are not blurred, so nothing is to be taken off.
    sharp = Viewer(large.layout, tuple(viewer.softening.tolist()), 0.2, (0.0, 0.0))
    measured = sharp.measure(images_of(large))
    truth = large.catalogue
    for name, tolerance in (("magnitude_g", 0.1), ("magnitude_Ks", 0.1), ("color_g_Ks", 0.05), ("size_arcsec", 0.1)):
        error = measured.values[name] - truth[name].to_numpy()
        assert np.nanmedian(np.abs(error)) < tolerance, name
    assert np.median(measured.values["noise_Ks"] / truth["noise_Ks"]) == pytest.approx(1, abs=0.03)
    turned = sharp.read(measured, "color_Ks_g")
    np.testing.assert_allclose(turned, -measured.values["color_g_Ks"])
    assert sharp.read(measured, "redshift") is None and sharp.read(measured, "color_g_z") is None
    assert sharp.table(measured).shape == (40, len(sharp.statistics))
    assert MISSING_PIXELS in sharp.flag_bits and MISSING_PIXELS not in DISPLAY_VIEWER.flag_bits


def test_statistics_are_those_of_the_bands():
    names = [statistic.name for statistic in statistics_of("flux", ("g", "r", "z"))]
    assert names[:5] == ["magnitude_g", "magnitude_r", "magnitude_z", "color_g_r", "color_r_z"]  # g - z is their sum
    assert {"size_arcsec", "petrosian_radius_arcsec", "asymmetry", "gini", "m20", "noise_r"} <= set(names)
    assert not {"color_g_z", "brightness", "size"} & set(names)
    units = {statistic.name: statistic.unit for statistic in statistics_of("flux", ("g",))}
    assert (units["magnitude_g"], units["size_arcsec"], units["noise_g"]) == ("mag", "arcsec", "nJy")


def test_shades_are_the_stretch_and_linear_is_softenings(large):
    viewer, images = Viewer.of_dataset(large), images_of(large)
    softening = np.asarray(large.settings(())["softening"])
    linear = viewer.linear(images).double().numpy()
    np.testing.assert_allclose(linear, images.numpy() / softening[:, None, None], rtol=1e-6)
    np.testing.assert_allclose(viewer.shades(images), np.arcsinh(linear) / np.arcsinh(1000), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(viewer.levels(images), 255 * viewer.shades(images))
    pictures = viewer.pictures(images)
    assert (pictures.dtype, pictures.shape) == (torch.uint8, (40, 3, 64, 64))
    assert pictures[:, :, 28:36, 28:36].float().mean() > 2 * pictures[:, :, :8, :8].float().mean()


# The judge


@pytest.fixture(scope="module")
def state(survey) -> dict:
    return train_judge(survey, CPU, epochs=7)


def test_the_judge_reads_colors_and_redshifts_of_two_bands_and_one_class(survey, state):
    reader = Judge(state, CPU, survey.layout)
    rows = survey.rows("test")
    images = images_of(survey, rows)
    assert reader.attributes == ("magnitude_g", "magnitude_Ks", "color_g_Ks", "size_arcsec", "redshift")
    read = dict(zip(reader.attributes, reader.read(images).numpy().T, strict=True))
    for name in ("magnitude_g", "color_g_Ks", "redshift"):
        truth = survey.attributes((name,), rows)[:, 0]
        assert spearmanr(read[name], truth).statistic > 0.8, name
    assert reader.classify(images).tolist() == [[1.0]] * len(rows)
    assert reader.features(images).shape == (len(rows), 128)
    with pytest.raises(ValueError, match=r"\(N, 2, S, S\)"):
        reader.read(images[:, :1])


def test_a_stored_judge_is_read_again_and_one_of_other_bands_is_not(survey, state, tmp_path, monkeypatch, capsys):
    data = dataclasses.replace(survey, path=tmp_path)
    trainings = []
    monkeypatch.setattr(judge, "train_judge", lambda *_: trainings.append(1) or state)
    first, again = Judge.of_dataset(data, "cpu"), Judge.of_dataset(data, "cpu")
    assert len(trainings) == 1
    images = images_of(survey, slice(0, 3))
    assert torch.equal(first.read(images), again.read(images))
    wrong = state | {"softening": torch.ones(3)}
    monkeypatch.setattr(judge, "load_checkpoint", lambda path: wrong | {"judge": [1, judge.dataset_key(data)]})
    Judge.of_dataset(data, "cpu")
    assert len(trainings) == 2 and "softening" in capsys.readouterr().out


def test_the_light_is_that_of_the_middle_and_colors_are_of_neighbours():
    torch.manual_seed(0)
    network = JudgeNetwork(1, 8, SimpleNamespace(bands="abc", is_flux=True, classes=("x",)))
    images = torch.rand(2, 3, 32, 32) * 40
    seen = []
    network.light.layers = torch.nn.Identity()
    network.light.register_forward_hook(lambda module, given, found: seen.append(found))
    network.light(images)
    axis = np.arange(32) - 15.5
    for number, part in enumerate((1 / 32, 1 / 16, 1 / 8)):
        weight = np.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / (part * 32) ** 2)
        counted = (images.numpy() * weight).sum((2, 3)) / np.sqrt((weight**2).sum())
        expected = np.arcsinh(counted)
        found = seen[0][:, 3 * number : 3 * number + 3].numpy()
        np.testing.assert_allclose(found[:, 0], expected.mean(1) / 2 - 4, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found[:, 1:], 3 * np.diff(expected, axis=1), atol=1e-4)


def test_many_colors_weigh_as_much_as_one_redshift():
    names = ("magnitude_g", "magnitude_r", "color_g_r", "color_g_z", "color_r_z", "redshift")
    assert judge._weights(names).tolist() == pytest.approx([1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3, 1])
    assert judge._weights(("size", "color", "petro_r50_kpc")).tolist() == [1, 1, 1]


# Sets of galaxies


def test_damages_are_in_units_of_each_bands_noise(large):
    viewer, images = Viewer.of_dataset(large), images_of(large)
    noise = (add_noise(images, 3.0, 0, viewer) - images).std((0, 2, 3))
    torch.testing.assert_close(noise, 3 * viewer.softening / 2, rtol=0.02, atol=0)
    blurred = blur(images, 2.0, viewer)
    assert blurred.dtype == torch.float32 and (blurred < 0).any()  # nothing is rounded or cut off
    peak = lambda planes: planes.amax((2, 3)).median()  # noqa: E731
    assert peak(blurred) < 0.8 * peak(images)


def test_features_and_power_take_any_bands(large):
    viewer, images = Viewer.of_dataset(large), images_of(large)
    features = RandomFeatures(64, viewer).features(images)
    assert features.shape == (40, 64) and np.isfinite(features).all()
    groups = groups_of(np.arange(40) % 3, np.arange(40) % 3, large.layout.classes)
    assert list(groups) == ["all", "a", "b", "c"]
    power = power_ratio(10 * images, images, groups, 0, viewer=viewer)
    np.testing.assert_allclose(power.groups["all"].ratio, 100, rtol=1e-3)  # the square of the flux


def test_a_fresh_network_sees_stretched_bands_and_knows_the_classes(large):
    viewer, images = Viewer.of_dataset(large), images_of(large)
    network, seen = RealOrGenerated(64, 4, viewer).eval(), []
    network.features.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    assert network(images[:4]).shape == (4,)
    torch.testing.assert_close(seen[0], 2 * viewer.shades(images[:4]) - 1)
    rows = np.arange(5)
    assert set(groups_with_pairs([(rows, rows), (rows[:1], rows[:1])], ("galaxy", "other"))) == {"galaxy", "all"}


def test_a_turned_copy_with_other_noise_is_found(large):
    viewer, images = Viewer.of_dataset(large), images_of(large)
    copies = add_noise(images[:5].rot90(1, (2, 3)).flip(3), 0.5, 0, viewer)
    distance, index = nearest_training(copies, images, viewer=viewer)
    assert index.tolist() == [0, 1, 2, 3, 4] and distance.max() < 3
    report, nearest = look_for_copies(
        images[:20], images[20:], large.images, np.arange(20), 0, Engine.choose("cpu", "fp32"), viewer
    )
    assert report.copies.value > 0.9 and nearest.generated.max() < 1e-3
    assert torch.equal(*nearest.pairs) and nearest.pairs[0].dtype == torch.float32


def test_statmorph_reads_arcseconds(large, monkeypatch):
    pytest.importorskip("statmorph")
    softening = large.settings(())["softening"]
    row = large.catalogue["magnitude_Ks"].to_numpy().argmin()
    image = images_of(large, slice(row, row + 1))
    values, flags = Viewer(large.layout, softening, 0.2, (0.0, 0.0)).statmorph(image, "x")
    np.testing.assert_allclose(values["size_arcsec"], large.catalogue["size_arcsec"].iloc[row], rtol=0.1)
    assert (values["petrosian_radius_arcsec"] > values["size_arcsec"]).all() and (flags < 2).all()
    pixels = {name: np.array([4.0]) for name in with_statmorph._QUANTITIES}
    monkeypatch.setattr(with_statmorph, "_read_all", lambda lights, *_: (pixels, flags))
    blurred = Viewer(large.layout, softening, 0.2, (0.8, 0.8)).statmorph(image, "x")[0]
    assert blurred["size_arcsec"] == pytest.approx([np.sqrt(0.8**2 - 0.4**2)])
    assert blurred["petrosian_radius_arcsec"] == pytest.approx([0.8])


# What is compared with what


def config_like(data: PreparedDataset, **changes) -> SimpleNamespace:
    told = {"kind": "flux", "bands": BANDS, "classes": data.layout.classes, "image_size": 64, "pixel_scale": 0.2}
    return SimpleNamespace(config=SimpleNamespace(**{**told, "attributes": ("magnitude_g",), **changes}))


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"kind": "display"}, "draws images of kind display, and .* holds kind flux"),
        ({"bands": ("Ks", "g")}, "knows the bands Ks, g, and .* has 'g, Ks'"),
        ({"classes": ("a", "b")}, "knows the classes a, b, and .* has 'a, b, c'"),
        ({"pixel_scale": 0.26}, "draws at 0.26 arcsec a pixel, and .* holds 0.2"),
        ({"attributes": ("color_g_Ks", "gini")}, "knows no gini"),
    ],
)
def test_data_of_other_bands_classes_or_pixels_are_refused(large, tmp_path, changes, text):
    with pytest.raises(UserError, match=text):
        match(config_like(large, **changes), large, tmp_path)


def test_targets_of_flux_are_physical(large):
    cells = {"all": {"mae": {"value": 0.04}, "spearman": {"value": 0.9}} | {"mean_requested": 0.5}}
    worse = {"all": {"mae": {"value": 0.04}, "spearman": {"value": 0.7}}}
    names = ["magnitude_r", "size_arcsec", "ellipticity", "redshift"]
    told = {"photometry": cells}
    report = report_of(
        {
            "control": {
                "attributes": {"test": dict.fromkeys(names[:3], told) | {"redshift": {"judge": worse}}},
                "instruments": {"redshift": {"judge": cells}},
            }
        }
    )
    data = dataclasses.replace(report.data, kind="flux", bands=["r"], classes=["galaxy"])
    ranges = [(16.0, 26.0), (0.0, 2.0), (0.0, 1.0), (0.0, 1.0)]
    checkpoint = dataclasses.replace(report.checkpoint, attributes=names, attribute_ranges=ranges)
    found = {v.name: (v.found, v.met) for v in verdicts(dataclasses.replace(report, data=data, checkpoint=checkpoint))}
    assert found["magnitude_r, photometry: Spearman"] == (0.9, False)
    assert found["half-light radius, photometry: MAE over the mean"] == (pytest.approx(0.08), True)
    assert found["ellipticity, photometry: MAE"] == (0.04, True)
    assert found["redshift by the judge, real galaxies: Spearman"] == (0.9, True)
    assert found["redshift by the judge, generated galaxies: Spearman"] == (0.7, False)
    assert not [name for name in found if "brightness" in name or "class" in name]  # one class is no achievement
    assert not isinstance(report.judge, LeftOut)
