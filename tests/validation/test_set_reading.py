"""Sets of every origin: what is read, brought to the reference's pixels, left out, and refused in a sentence."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from galaxies.common.errors import UserError
from galaxies.datasets.layout import DataLayout, FluxBand
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.writing import DatasetWriter
from galaxies.validation.set_comparison import compare_sets, labels_of
from galaxies.validation.set_reading import FitsOptions, Wanted, read_set
from tests.conftest import render_galaxies, run_script, write_dataset
from tests.validation.flux_sets import SCALE, flux_set, light


@pytest.fixture(scope="module")
def real(wide_path):
    return wide_path


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    return flux_set(tmp_path_factory.mktemp("reference") / "flux", 700, seed=1)


def wanted(data: PreparedDataset, **options) -> Wanted:
    scale = data.settings(())["pixel_scale"] if data.layout.is_flux else 0.0
    return Wanted(**{"layout": data.layout, "image_size": 64, "pixel_scale": scale, "most": 50, "seed": 0} | options)


def test_the_order_of_files_changes_nothing(real, tmp_path):
    data = PreparedDataset.open(real)
    rows = data.rows("train")[:60]
    for name, order in (("one", rows), ("two", rows[::-1])):
        (tmp_path / name).mkdir()
        for row in order:
            Image.fromarray(data.images[row].transpose(1, 2, 0)).save(tmp_path / name / f"{row:04d}.png")
    with zipfile.ZipFile(tmp_path / "three.zip", "w") as archive:
        for file in sorted((tmp_path / "one").iterdir(), reverse=True):
            archive.write(file, file.name)
    one, *others = (read_set(tmp_path / name, wanted(data, most=40)) for name in ("one", "two", "three.zip"))
    assert len(one.names) == 40
    for other in others:
        assert other.names == one.names
        assert np.array_equal(other.images, one.images)
    again = read_set(tmp_path / "one", wanted(data, most=40, seed=1))
    assert again.names != one.names


def test_larger_pictures_are_put_together_and_smaller_ones_refused(real, tmp_path):
    data = PreparedDataset.open(real)
    large = write_dataset(tmp_path / "large", 30, seed=3, side=128)
    found = read_set(large, wanted(data))
    assert found.images.shape == (30, 3, 64, 64)
    whole = PreparedDataset.open(large)
    first = whole.images[whole.catalogue["object_id"].tolist().index(found.names[0])].astype(float)
    means = first.reshape(3, 64, 2, 64, 2).mean((2, 4))
    assert np.abs(found.images[0] - means).max() <= 0.5
    assert "reduced from 128 to 64" in found.remarks[0]
    with pytest.raises(
        UserError, match="what is stretched shows nothing new: prepare the reference again with --size 64"
    ):
        read_set(real, wanted(PreparedDataset.open(large), image_size=128))


def test_finer_pixels_of_flux_are_put_together_and_keep_their_flux(flux, tmp_path):
    images = np.random.default_rng(0).normal(100, 1, (30, 2, 128, 128)).astype(np.float32)
    layout = DataLayout("flux", (FluxBand("r", 620.0), FluxBand("g", 480.0)), ("galaxy",))
    with DatasetWriter(tmp_path / "fine", 128, 1.0, {}, layout=layout) as writer:
        writer.append(images, [f"f{k:02d}" for k in range(30)], ["galaxy"] * 30, {"pixel_scale": np.full(30, 0.1)})
    found = read_set(tmp_path / "fine", wanted(PreparedDataset.open(flux)))
    assert found.images.sum((2, 3)) == pytest.approx(
        images[np.argsort([f"f{k:02d}" for k in range(30)])].sum((2, 3)), rel=1e-5
    )
    assert "brought from 128 pixels of 0.1 arcsec to 64 of 0.2" in found.remarks[0]
    turned = found.in_bands(("g", "r"))
    assert np.array_equal(turned.images[:, 0], found.images[:, 1])
    coarse = wanted(PreparedDataset.open(flux), pixel_scale=0.05)
    with pytest.raises(UserError, match=r"coarser than the reference's 0\.05"):
        read_set(tmp_path / "fine", coarse)
    with pytest.raises(UserError, match=r"shows 12\.8 arcsec and the reference 25\.6"):
        read_set(tmp_path / "fine", wanted(PreparedDataset.open(flux), image_size=128))


def test_galaxies_of_a_generator_are_read_with_their_classes(real, tmp_path, untrained):
    out = tmp_path / "made"
    told = run_script(
        "generate_from_checkpoint.py",
        "--checkpoint",
        untrained["gan"],
        *("--morphology", "spiral", "--count", "24", "--format", "png,npz", "--out", out),
        cwd=tmp_path,
    )
    assert told.returncode == 0, told.stderr
    data = PreparedDataset.open(real)
    of_archive = read_set(out, wanted(data))
    assert set(of_archive.morphologies) == {"spiral"}
    (out / "images.npz").unlink()
    of_pictures = read_set(out, wanted(data))
    assert np.array_equal(of_archive.images, of_pictures.images)
    assert of_pictures.morphologies == of_archive.morphologies


def test_fits_cutouts_come_on_the_pixels_of_the_reference(flux, tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    images = light(24, 7).astype(np.float32) + np.random.default_rng(0).normal(0, 20, (24, 2, 64, 64)).astype(
        np.float32
    )
    (tmp_path / "fits").mkdir()
    for k, image in enumerate(images):
        fits.writeto(tmp_path / "fits" / f"g{k:02d}.fits", image)
    (tmp_path / "fits" / "torn.fits").write_bytes(b"SIMPLE  =                    T" + b" " * 50)
    told = FitsOptions(("g", "r"), unit=("nJy",), pixel_scale=(SCALE,), psf_fwhm=(0.6,))
    found = read_set(tmp_path / "fits", wanted(PreparedDataset.open(flux), fits=told))
    assert found.images.shape == (24, 2, 64, 64)
    assert np.allclose(found.images, images, atol=1e-2)
    assert found.psf_fwhm == pytest.approx(np.full((24, 2), 0.6))
    assert [name for name, _ in found.unreadable] == ["torn"]
    with pytest.raises(UserError, match="--bands"):
        read_set(tmp_path / "fits", wanted(PreparedDataset.open(flux)))


def test_what_cannot_be_read_is_counted_and_named(real, tmp_path):
    data = PreparedDataset.open(real)
    (tmp_path / "p").mkdir()
    for row in data.rows("train")[:30]:
        Image.fromarray(data.images[row].transpose(1, 2, 0)).save(tmp_path / "p" / f"{row}.png")
    (tmp_path / "p" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    Image.new("L", (64, 64), 7).save(tmp_path / "p" / "grey.png")
    found = read_set(tmp_path / "p", wanted(data))
    assert len(found.names) == 30
    assert dict(found.unreadable) == {"torn.png": "corrupt or truncated", "grey.png": "greyscale"}


def test_labels_tell_sets_apart():
    paths = [Path("a/x"), Path("b/x"), Path("b/y")]
    assert labels_of(paths) == ["a/x", "b/x", "b/y"]
    assert labels_of(paths[1:]) == ["x", "y"]
    assert labels_of([Path("x"), Path("x")]) == ["x", "x (2)"]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda folder: folder / "nothing", "does not exist: name a prepared dataset"),
        (lambda folder: folder, "no JPEG or PNG image in"),
        (lambda folder: _written(folder / "latest.pt"), "is no set of galaxies"),
        (lambda folder: _pictures(folder, 5), "has 5 galaxies that can be compared, and 20 are needed"),
    ],
)
def test_mistakes_are_one_sentence(real, tmp_path, make, text):
    with pytest.raises(UserError, match=re.escape(text)):
        compare_sets(real, [make(tmp_path)], 100, 0, "cpu")


def _written(path: Path) -> Path:
    path.write_bytes(b"PK")
    return path


def _pictures(folder: Path, count: int) -> Path:
    for k, image in enumerate(render_galaxies(count, seed=9)[0]):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{k}.png")
    return folder


def test_other_kinds_and_other_bands_are_refused(real, flux, tmp_path):
    with pytest.raises(UserError, match="holds flux and the reference display pictures"):
        compare_sets(real, [flux], 100, 0, "cpu")
    with pytest.raises(UserError, match="holds display pictures and the reference flux"):
        compare_sets(flux, [real], 100, 0, "cpu")
    layout = DataLayout("flux", (FluxBand("J"),), ("galaxy",))
    with DatasetWriter(tmp_path / "near", 64, 1.0, {}, layout=layout) as writer:
        images = light(30, 1)[:, :1].astype(np.float32)
        writer.append(images, [f"j{k}" for k in range(30)], ["galaxy"] * 30, {"pixel_scale": np.full(30, SCALE)})
    with pytest.raises(UserError, match="has the band J, of which none is in common with the reference's g, r"):
        compare_sets(flux, [tmp_path / "near"], 100, 0, "cpu")


def test_a_reference_of_too_few_galaxies_is_refused(tmp_path):
    with pytest.raises(UserError, match="test galaxies, and 40 are needed to compare with: prepare more data"):
        compare_sets(write_dataset(tmp_path / "few", 60), [tmp_path], 100, 0, "cpu")
