from __future__ import annotations

import numpy as np
import pytest

from galaxies.datasets.field import stars
from galaxies.datasets.field.detection import Sources
from galaxies.datasets.field.stars import (
    GALAXY,
    STAR,
    UNCLEAR,
    Locus,
    Shapes,
    _beside_star,
    _in_one_band,
    _psf_of,
    classify,
    find_locus,
    tell_apart,
)

RNG = np.random.default_rng(0)


def crowd(num_stars, num_galaxies, star=1.8):
    """Return half-light radii, signal over noise and peaks of stars and of galaxies two to five times as many."""
    radius = np.concatenate([star * np.exp(RNG.normal(0, 0.01, num_stars)), RNG.uniform(2.2, 6.0, num_galaxies)])
    snr = 10 ** RNG.uniform(2.1, 3.5, len(radius))
    return radius, snr, 10 * snr / radius**2


def test_the_line_of_the_stars_is_found_among_many_galaxies():
    for num_stars in (12, 60):
        locus = find_locus(*crowd(num_stars, 150))
        assert locus.radius == pytest.approx(1.8, rel=0.01)
        assert abs(locus.num_stars - num_stars) <= 2
        assert 0.01 <= locus.scatter < 0.02


def test_galaxies_alone_make_no_line():
    assert find_locus(*crowd(0, 150)) is None
    assert find_locus(*crowd(3, 10)) is None
    assert find_locus(*crowd(0, 0)) is None


def test_many_sizes_of_galaxies_are_no_line():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        radius = 2 + rng.gamma(2, 0.8, 400)
        assert find_locus(radius, np.full(400, 200.0), np.ones(400)) is None


def test_a_narrower_line_than_most_galaxies_make_is_taken():
    # Galaxies of one size are denser than the stars, and wider than they.
    radius, snr, peak = crowd(25, 0)
    radius = np.append(radius, 3 * np.exp(RNG.normal(0, 0.01, 40)))
    locus = find_locus(radius, np.append(snr, np.full(40, 200.0)), np.append(peak, np.full(40, 10.0)))
    assert locus.radius == pytest.approx(1.8, rel=0.02)


def shapes(radius, snr, peak=1.0):
    radius = np.atleast_2d(np.asarray(radius, float))
    flux = np.full(radius.shape, 1000.0)
    return Shapes(flux, flux / np.asarray(snr, float), radius, np.broadcast_to(np.asarray(peak, float), radius.shape))


LINE = Locus(2.0, 0.01, 50, saturated=100.0)


def test_stars_and_galaxies_are_told_by_size_as_far_as_noise_lets():
    radii = [[2.0], [2.02], [2.6], [2.6], [2.3], [1.4]]
    snr = [[100.0], [100.0], [100.0], [8.0], [12.0], [100.0]]
    kinds, excess = classify(shapes(radii, snr), [LINE])
    assert kinds.tolist() == [STAR, STAR, GALAXY, UNCLEAR, UNCLEAR, STAR]
    assert np.allclose(excess, [0, 0.01, 0.3, 0.3, 0.15, -0.3], atol=1e-6)


def test_bands_tell_together_what_none_tells_alone():
    one, _ = classify(shapes([[2.6]], [[8.0]]), [LINE])
    four, excess = classify(shapes([[2.6] * 4], [[8.0] * 4]), [LINE] * 4)
    assert (one[0], four[0]) == (UNCLEAR, GALAXY)
    # A band of more signal has the larger say: weights are 1 / (0.01² + 1 / snr²).
    _, excess = classify(shapes([[2.0, 2.6]], [[10.0, 100.0]]), [LINE] * 2)
    weights = 1 / (0.01**2 + np.array([0.1, 0.01]) ** 2)
    assert excess[0] == pytest.approx(0.3 * weights[1] / weights.sum())
    # One without a line of stars has none.
    kinds, _ = classify(shapes([[9.0, 2.0]], [[100.0, 100.0]]), [None, LINE])
    assert kinds[0] == STAR


def test_saturated_stars_are_told_by_their_peaks():
    # Too bright in the only band; in one of two; and a galaxy whose nucleus is.
    kinds, _ = classify(shapes([[3.0]], [[1000.0]], peak=150.0), [LINE])
    assert kinds[0] == STAR
    kinds, _ = classify(shapes([[3.0, 2.01]], [[1000.0, 100.0]], peak=[150.0, 1.0]), [LINE] * 2)
    assert kinds[0] == STAR
    kinds, _ = classify(shapes([[20.0]], [[1000.0]], peak=150.0), [LINE])
    assert kinds[0] == GALAXY


def test_what_one_band_alone_shows_is_no_galaxy():
    error = np.ones((5, 3))
    flux = np.array([[0, 1000.0, 1], [200, 1000, 1], [0, 20, 0], [90, 1000, 90], [np.nan, 1000, 0]])
    found = _in_one_band(Shapes(flux, error, flux, flux))
    # 20 times the noise says nothing of the bands beside; two bands are too few to tell.
    assert found.tolist() == [True, False, False, True, False]


@pytest.mark.parametrize(("fwhm", "beta"), [(2.4, 2.5), (4.0, 3.5)])
def test_psf_is_that_of_galsims_stars(fwhm, beta):
    galsim = pytest.importorskip("galsim")
    star = galsim.Moffat(beta=beta, fwhm=fwhm)
    stamps = []
    for _ in range(25):
        moved = star.withFlux(10 ** RNG.uniform(4.5, 6)).shift(*RNG.uniform(-0.5, 0.5, 2))
        pixels = moved.drawImage(nx=31, ny=31, scale=1).array
        stamps.append((pixels + RNG.normal(0, 15, pixels.shape)).astype(np.float32))
    psf = _psf_of(stamps, 1.3 * fwhm)
    assert psf.fwhm == pytest.approx(galsim.Convolve(star, galsim.Pixel(1)).calculateFWHM(), rel=0.02)
    true = star.drawImage(nx=31, ny=31, scale=1).array
    assert np.abs(psf.image - true / true.sum()).sum() < 0.05
    assert psf.image.sum() == pytest.approx(1, abs=1e-5)
    assert psf.num_stars == 25


# Where sources lie close to each other


def sources(*rows):
    """Return sources by (x, y, snr, area, blended) each."""
    x, y, snr, area, blended = (np.array(column) for column in zip(*rows, strict=True))
    width = np.ones(len(x))
    return Sources(x.astype(float), y.astype(float), width, width, snr, area, blended, np.zeros(len(x), bool))


def test_what_lies_on_the_halo_of_a_much_brighter_star_is_unclear():
    area = round(np.pi * 10**2)  # a radius of 10 pixels, of which 1.2 count
    found = sources(
        (100, 100, 1000.0, area, False),  # the star
        (111.5, 100, 290.0, 20, False),  # within 12 pixels, and less than 0.3 of it
        (100, 112.5, 290.0, 20, False),  # beyond
        (93, 93, 310.0, 20, False),  # too bright for a piece of it
        (100, 95, 100.0, 20, False),  # told to be a star
        (300, 300, 299.0, area, False),  # a star whose halo drowns in the noise
        (305, 300, 20.0, 20, False),
        (500, 500, 2000.0, area, False),  # a galaxy, which has no such halo
        (505, 500, 20.0, 20, False),
    )
    kinds = np.array([STAR, GALAXY, GALAXY, GALAXY, STAR, STAR, GALAXY, GALAXY, GALAXY])
    assert np.flatnonzero(_beside_star(found, kinds)).tolist() == [1]
    assert not _beside_star(found, np.full(9, GALAXY)).any()


def test_of_a_source_that_another_lies_near_the_core_tells_what_it_is(monkeypatch):
    """The widths here are 2.35 pixels, so that neighbours count within 7."""
    area = round(np.pi * 3**2)
    found = sources(
        (100, 100, 100.0, area, False),  # by both: a star
        (200, 100, 100.0, area, False),  # alone, wide as a whole: a galaxy whatever its core says
        (300, 100, 100.0, area, False),  # two stars near each other, wide as a whole
        (306, 100, 100.0, area, False),
        (400, 100, 100.0, area, True),  # blended, with a core as wide as a galaxy's
        (500, 100, 100.0, area, True),  # blended, with a star's
        (600, 100, 100.0, area, True),  # blended, without a core
        (700, 100, 100.0, area, False),  # alone, without one
        (800, 100, 1000.0, area, False),  # a bright star, and what lies on its halo
        (800, 103, 100.0, area, False),
    )
    whole = [2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 2.0, 3.0]
    cores = [1.0, 1.0, 1.0, 1.0, 1.3, 1.0, np.nan, np.nan, 1.0, 1.3]
    apertures = []

    def measured(planes, skies, sources, aperture):
        apertures.append(aperture)
        radius = whole if len(apertures) == 1 else cores
        return shapes([[r] * 2 for r in radius], [[100.0] * 2] * len(radius))

    lines = iter([LINE, LINE, LINE._replace(radius=1.0), LINE._replace(radius=1.0)])
    monkeypatch.setattr(stars, "measure_shapes", measured)
    monkeypatch.setattr(stars, "find_locus", lambda *_: next(lines))
    _, loci, kinds, excess = tell_apart([], [], found, [None, None])
    assert apertures[1] == apertures[0] / 2
    S, G, U = STAR, GALAXY, UNCLEAR  # noqa: N806
    assert kinds.tolist() == [S, G, S, S, G, S, U, G, S, U]
    assert loci == [LINE, LINE] and excess[1] == pytest.approx(0.5)
