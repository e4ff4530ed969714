from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from galaxies.common.errors import UserError
from galaxies.datasets.field import detection
from galaxies.datasets.sources.field import _bands_of
from prepare_data import main
from tests.datasets.field.made_fields import FWHM, HALF_LIGHT, make_field, picture, sky_header, write_frame

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


def test_bands_that_options_name_are_found_by_their_places():
    frames = [SimpleNamespace(band=band) for band in ("u", "g", "r")]
    assert _bands_of(["r", "u"], frames, "--detect") == [2, 0] and _bands_of(None, frames, "--detect") == [0, 1, 2]
    with pytest.raises(UserError, match="--detect names 'z', and the bands are u, g, r"):
        _bands_of(["g", "z"], frames, "--detect")


def test_finds_the_galaxies_and_leaves_the_stars(prepared):
    catalogue, _, manifest = prepared
    assert manifest["source"].endswith("r.fits")
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


# Other grids


def test_a_band_of_other_pixels_is_resampled_and_keeps_its_light(tmp_path):
    # The second band has pixels of 0.39", turned by 20 degrees about the same centre.
    field = make_field(num_stars=12, num_galaxies=10, side=300, seed=3)
    size, side = 0.3 / 0.39, 280
    turn = np.radians(20)

    def there(x, y):
        u, v = (x - 149.5) * size, (y - 149.5) * size
        return 139.5 + u * np.cos(turn) - v * np.sin(turn), 139.5 + u * np.sin(turn) + v * np.cos(turn)

    one = picture(field, 0, 1.3, 5.0, seed=5)
    other = picture(field, 1, 1.8, 5.0, seed=6, stretch=(there, size, (side, side)))
    files = [
        write_frame(tmp_path / "g.fits", one, sky_header((300, 300), 0.3)),
        write_frame(tmp_path / "r.fits", other, sky_header((side, side), 0.39, -20)),
    ]
    catalogue, _, _ = prepare(tmp_path / "out", files, zero_point="31.4")
    index, apart = nearest(catalogue, field)
    assert len(catalogue) >= 5
    assert apart.max() < 0.25
    magnitude = 31.4 - 2.5 * np.log10(field.flux[index])
    assert np.abs(catalogue["color_g_r"] - (magnitude[:, 0] - magnitude[:, 1])).max() < 0.04
    assert np.allclose(catalogue["pixel_scale"], 0.3, rtol=1e-4)
    # A pixel of the new grid is smaller, so that its noise is; the kernel takes off more.
    assert (catalogue["noise_r"] < 5 * 0.77**2 * 1.1).all()
    assert np.allclose(catalogue["noise_g"], 5, rtol=0.08)
    # The kernel of the resampling blurs besides, by as much as it does.
    assert (catalogue["psf_fwhm_r"] > FWHM * 1.8 * 0.3).all()
    assert (catalogue["psf_fwhm_r"] < FWHM * 1.8 * 0.3 * 1.25).all()


def test_a_band_moved_by_whole_pixels_is_not_resampled(tmp_path, capsys, prepared):
    images = [picture(FIELD, k, PSF[k], NOISE[k], seed=k) for k in range(2)]
    header = sky_header(FIELD.shape, SCALE)
    moved = {**header, "CRPIX1": header["CRPIX1"] - 7, "CRPIX2": header["CRPIX2"] - 4}
    files = [
        write_frame(tmp_path / "g.fits", images[0], header),
        write_frame(tmp_path / "r.fits", images[1][4:, 7:], moved),
    ]
    catalogue, _, _ = prepare(tmp_path / "out", files, zero_point="31.4")
    assert "band r moved by -7, -4 whole pixels" in capsys.readouterr().out
    one = catalogue.set_index(catalogue["x"].round(0)).sort_index()
    same = prepared[0].set_index(prepared[0]["x"].round(0)).sort_index()
    shared = one.index.intersection(same.index)
    assert len(shared) > 8
    assert np.abs(one.loc[shared, "color_g_r"] - same.loc[shared, "color_g_r"]).max() < 0.02
    assert one["object_id"].str.match(r"J\d{6}\.\d{3}[+-]\d{6}\.\d{2}$").all()


# Catalogues


@pytest.fixture(scope="module")
def sky_frames(tmp_path_factory):
    return write_frames(tmp_path_factory.mktemp("sky"), header=sky_header(FIELD.shape, SCALE))


def sky_positions(x, y):
    from astropy.io import fits
    from astropy.wcs import WCS

    header = fits.Header()
    header.update({"NAXIS": 2, "NAXIS1": FIELD.shape[1], "NAXIS2": FIELD.shape[0], **sky_header(FIELD.shape, SCALE)})
    return WCS(header).all_pix2world(x, y, 0)


def test_a_catalogue_of_the_sky_says_where_and_what(sky_frames, tmp_path):
    chosen = np.flatnonzero(whole())
    ra, dec = sky_positions(FIELD.x[chosen] + 0.8, FIELD.y[chosen])  # off by 0.8 pixels
    ra, dec = np.append(ra, 151.0), np.append(dec, 2.0)  # and one that is not in the frame
    table = pd.DataFrame({"ID": [f"id{k}" for k in chosen] + ["far"], "ALPHA_J2000": ra, "DELTA_J2000": dec})
    table["kind"] = ["disk" if k % 2 else "round" for k in range(len(table))]
    table["z_spec"] = np.arange(len(table)) / 100 + 0.1
    table["Halpha"] = np.arange(len(table)) * 1.5
    table.to_csv(tmp_path / "table.csv", index=False)
    catalogue, _, manifest = prepare(
        *(tmp_path / "out", sky_frames, "--catalogue", str(tmp_path / "table.csv")),
        *("--columns", "object_id=ID,morphology=kind,redshift=z_spec,line=Halpha"),
    )
    index, apart = nearest(catalogue)
    assert sorted(index) == [k for k in chosen if not FIELD.is_star[k]]
    assert apart.max() < 0.25  # centred on the light
    assert catalogue["object_id"].tolist() == [f"id{k}" for k in index]
    place = {k: n for n, k in enumerate(chosen)}
    assert catalogue["morphology"].tolist() == ["disk" if place[k] % 2 else "round" for k in index]
    assert np.allclose(catalogue["redshift"], [place[k] / 100 + 0.1 for k in index])
    assert np.allclose(catalogue["line"], [place[k] * 1.5 for k in index])
    assert manifest["classes"] == ["disk", "round"]
    # The same galaxies with classes by rules.
    (tmp_path / "c.toml").write_text(
        '[[class]]\nname = "ringed"\nwhere = "kind == \\"disk\\" and z_spec < 0.3"\nshare = "z_spec"\n'
        '[[class]]\nname = "round"\nwhere = "kind == \\"round\\""\nshare = "halpha"\n'
    )
    ruled, _, said = prepare(
        *(tmp_path / "ruled", sky_frames, "--catalogue", str(tmp_path / "table.csv")),
        *("--columns", "object_id=ID,morphology=kind,redshift=z_spec", "--classes", str(tmp_path / "c.toml")),
    )
    kept = [k for k in index if place[k] % 2 == 0 or place[k] / 100 + 0.1 < 0.3]
    assert ruled["object_id"].tolist() == [f"id{k}" for k in kept] and said["classes"] == ["ringed", "round"]
    assert ruled["morphology"].tolist() == ["ringed" if place[k] % 2 else "round" for k in kept]
    shares = [(place[k] / 100 + 0.1) / (place[k] * 1.51 + 0.1) for k in kept]
    assert np.allclose(ruled["class_share_ringed"], shares, atol=1e-6)
    assert manifest["source"].endswith(f"r.fits with {tmp_path / 'table.csv'}")
    assert np.allclose(
        catalogue[["ra", "dec"]], np.stack(sky_positions(catalogue["x"] - 1, catalogue["y"] - 1), 1), atol=1e-5
    )


def test_a_catalogue_in_pixels_says_what_is_a_star(frames, tmp_path):
    galaxies = np.flatnonzero(whole() & ~FIELD.is_star)
    stars = np.flatnonzero(whole() & FIELD.is_star)
    chosen = [*galaxies[:4], *stars[:4]]
    table = pd.DataFrame({"x": FIELD.x[chosen] + 1, "y": FIELD.y[chosen] + 1, "star": [1, 0, 0, 0, 0, 0, 1, 1]})
    table.to_csv(tmp_path / "table.csv", index=False)
    options = ("--pixel-scale", "0.3", "--catalogue", str(tmp_path / "table.csv"))
    catalogue, _, _ = prepare(tmp_path / "out", frames, *options)
    assert sorted(nearest(catalogue)[0]) == sorted([*galaxies[1:4], *stars[:2]])
    table[["x", "y"]].sub(1).to_csv(tmp_path / "table.csv", index=False)
    catalogue, _, _ = prepare(tmp_path / "all", frames, *options, "--first-pixel", "0", "--keep-stars")
    assert sorted(nearest(catalogue)[0]) == sorted(chosen)


def test_object_maps_say_where_galaxies_are(frames, tmp_path):
    galaxies = np.flatnonzero(whole() & ~FIELD.is_star)[:3]
    labels = np.zeros(FIELD.shape, np.int16)
    for label, k in enumerate(galaxies, 1):
        labels[round(FIELD.y[k]) - 2 : round(FIELD.y[k]) + 3, round(FIELD.x[k]) - 2 : round(FIELD.x[k]) + 3] = label
    write_frame(tmp_path / "maps.fits", labels)
    catalogue, _, _ = prepare(
        tmp_path / "out", frames, "--pixel-scale", "0.3", "--catalogue", str(tmp_path / "maps.fits")
    )
    assert nearest(catalogue)[0].tolist() == galaxies.tolist()


# What is wrong


def test_what_is_open_names_the_option(frames, sky_frames, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"how large its pixels are: give --pixel-scale"):
        prepare(out, frames)
    with pytest.raises(UserError, match=r"3 frames and 2 bands \(g, r\)"):
        prepare(out, [*frames, frames[0]], "--pixel-scale", "0.3")
    with pytest.raises(UserError, match=r"has no unit .* --zero-point"):
        prepare(out, sky_frames, zero_point=None)
    with pytest.raises(UserError, match=r"does not say its band.*--bands"):
        prepare(out, sky_frames, bands=None)
    with pytest.raises(UserError, match=r"--zero-point has 3 values for 2 frames"):
        prepare(out, sky_frames, zero_point="1,2,3")
    with pytest.raises(UserError, match=r"--grid names 'z', and the bands are g, r"):
        prepare(out, sky_frames, "--grid", "z")
    assert not out.exists()


def test_frames_that_do_not_match_are_refused(frames, sky_frames, tmp_path):
    out = tmp_path / "out"
    small = write_frame(tmp_path / "small.fits", picture(FIELD, 0)[:200])
    with pytest.raises(UserError, match=r"200 pixels.*no world coordinates.*cut them alike"):
        prepare(out, [frames[0], small], "--pixel-scale", "0.3")
    elsewhere = write_frame(tmp_path / "far.fits", picture(FIELD, 0), sky_header(FIELD.shape, SCALE, ra=151.0))
    with pytest.raises(UserError, match=r"different parts of the sky"):
        prepare(out, [sky_frames[0], elsewhere])
    headers = [{"FILTER": "H", **sky_header(FIELD.shape, SCALE)}] * 2
    twice = [write_frame(tmp_path / f"{k}.fits", picture(FIELD, 0), header) for k, header in enumerate(headers)]
    with pytest.raises(UserError, match=r"both of band H by their headers"):
        prepare(out, twice, bands=None)


def test_catalogues_without_the_field_are_refused(frames, sky_frames, tmp_path):
    out, table = tmp_path / "out", tmp_path / "table.csv"
    pd.DataFrame({"ra": [10.0, 20.0], "dec": [0.0, 1.0]}).to_csv(table, index=False)
    with pytest.raises(UserError, match=r"none of the 2 positions.*about RA 150.0000, Dec 2.0000"):
        prepare(out, sky_frames, "--catalogue", str(table))
    with pytest.raises(UserError, match=r"gives RA and Dec, and the frames have no world coordinates"):
        prepare(out, frames, "--pixel-scale", "0.3", "--catalogue", str(table))
    # Straight through the Earth: its projection lies in the frame.
    pd.DataFrame({"ra": [330.0], "dec": [-2.0]}).to_csv(table, index=False)
    with pytest.raises(UserError, match=r"none of the 1 positions"):
        prepare(out, sky_frames, "--catalogue", str(table))
    with pytest.raises(UserError, match=r"magnitude_g is measured on the frames"):
        prepare(out, sky_frames, "--catalogue", str(table), "--columns", "magnitude_g=mag")
    pd.DataFrame({"mag": [1.0]}).to_csv(table, index=False)
    with pytest.raises(UserError, match=r"no positions: name its columns.*it has mag"):
        prepare(out, sky_frames, "--catalogue", str(table))


def test_masks_weights_and_gaps_are_no_sources(tmp_path):
    images = [picture(FIELD, k, PSF[k], NOISE[k], seed=k) for k in range(2)]
    target = int(np.flatnonzero(whole(margin=60) & ~FIELD.is_star)[0])
    x, y = round(FIELD.x[target]), round(FIELD.y[target])
    images[0][y + 8 : y + 11, x - 20 : x + 21] = np.nan
    images[0][y - 30 : y - 26, x - 5 : x + 5] = 1e6  # a defect that the mask covers
    images[1][:, 300:] = -9999
    mask = np.zeros(FIELD.shape, np.uint8)
    mask[y - 30 : y - 26, x - 5 : x + 5] = 1
    weight = np.ones(FIELD.shape)
    weight[:40] = 0
    files = [write_frame(tmp_path / f"{band}.fits", image) for band, image in zip("gr", images, strict=True)]
    write_frame(tmp_path / "mask.fits", mask)
    write_frame(tmp_path / "weight.fits", weight)
    options = ("--pixel-scale", "0.3", "--mask", str(tmp_path / "mask.fits"), "--weight", str(tmp_path / "weight.fits"))
    catalogue, cutouts, _ = prepare(tmp_path / "out", files, *options, zero_point="31.4")
    index, apart = nearest(catalogue)
    assert apart.max() < 0.3  # nothing at the defect
    assert set(index) <= set(np.flatnonzero(~FIELD.is_star & whole()))
    row = index.tolist().index(target)
    assert np.isclose(catalogue["masked"][row] * 2 * 64**2, 3 * 41 + 2 * 4 * 10, atol=0.5)
    assert np.isfinite(cutouts).all()
    assert np.abs(cutouts[row]).max() < 1e5
    with pytest.raises(UserError, match=r"band g has no area of 60 pixels a side with enough values"):
        write_frame(tmp_path / "all.fits", np.ones(FIELD.shape, np.uint8))
        prepare(tmp_path / "none", files, "--pixel-scale", "0.3", "--mask", str(tmp_path / "all.fits"))
    with pytest.raises(UserError, match=r"80 x 100 pixels, and .* has 360 x 360"):
        write_frame(tmp_path / "other.fits", np.ones((100, 80), np.uint8))
        prepare(tmp_path / "none", files, "--pixel-scale", "0.3", "--mask", str(tmp_path / "other.fits"))


def test_without_stars_nothing_is_left_out_as_one(tmp_path, capsys):
    field = make_field(num_stars=0, num_galaxies=14, side=300, seed=4)
    catalogue, _, manifest = prepare(tmp_path / "out", write_frames(tmp_path, field), "--pixel-scale", "0.3")
    assert "no line of stars stands out" in capsys.readouterr().out
    assert sorted(nearest(catalogue, field)[0]) == np.flatnonzero(whole(field)).tolist()
    assert not [name for name in catalogue if name.startswith("psf")]
    assert manifest["sources"]["stars"] == 0


def test_cosmic_rays_are_no_galaxies(tmp_path):
    field = make_field(num_stars=12, num_galaxies=8, side=280, seed=3)
    images = [picture(field, 0, PSF[0], NOISE[0], seed=k) for k in range(3)]
    x, y = np.meshgrid(np.arange(50, 230), np.arange(50, 230))  # far from everything
    alone = np.hypot(x[..., None] - field.x, y[..., None] - field.y).min(-1)
    row, column = (int(k) + 50 for k in np.unravel_index(alone.argmax(), alone.shape))
    for k in range(9):
        images[1][row - 4 + k, column - 9 + 2 * k : column - 6 + 2 * k] += 3000
    files = [write_frame(tmp_path / f"{band}.fits", image) for band, image in zip("gri", images, strict=True)]
    catalogue, _, manifest = prepare(tmp_path / "out", files, "--pixel-scale", "0.3", bands="g,r,i", zero_point="31.4")
    assert nearest(catalogue, field)[1].max() < 0.3
    assert manifest["sources"]["in one band only, as cosmic rays are"] >= 1


def test_stars_side_by_side_are_no_galaxy(tmp_path):
    """Of equal brightness, 6.5 pixels apart: each spreads into the other's aperture, and is as wide as a galaxy."""
    pairs = np.arange(6)  # of the first stars
    assert FIELD.is_star[pairs].all()
    beside = FIELD._replace(
        x=np.append(FIELD.x, FIELD.x[pairs] + 6.5),
        y=np.append(FIELD.y, FIELD.y[pairs]),
        sigma=np.append(FIELD.sigma, np.zeros(len(pairs))),
        flux=np.concatenate([FIELD.flux, FIELD.flux[pairs]]),
    )
    frames = write_frames(tmp_path, beside)
    catalogue, _, _ = prepare(tmp_path / "made", frames, "--pixel-scale", str(SCALE))
    index, _ = nearest(catalogue, beside)
    assert sorted(index) == np.flatnonzero(~beside.is_star & whole(beside)).tolist()
