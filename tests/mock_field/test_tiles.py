"""Tiles of a sky: the light of a field that is painted whole, counts by their formula, pictures laid on one sky."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from galaxies.mock_field.making import reference_of
from galaxies.mock_field.painting import CELL_ARCSEC, Sky, paint
from galaxies.mock_field.picture_tiles import Backdrop, PictureTiles, window
from galaxies.mock_field.tiles import FIRST, LAST, TILE_PX, LightTiles, Tile, places_in
from galaxies.mock_field.trained_light import GeneratorLight
from galaxies.telescope.surveys import find_survey
from tests.generation.painted import light_painting_sampler

PARTS = {"spiral": 0.5, "elliptical": 0.5}


def light_tiles(survey="LSST", bands=("g", "r", "i"), faintest=22.0):
    found = find_survey(survey, bands)
    return LightTiles(found, faintest, GeneratorLight(light_painting_sampler(), found, reference_of(found)))


def painted_whole(tiles, sky, columns, rows):
    """The light of a rectangle of tiles as `observe.py field` adds it up, cell by cell; the lowest row first."""
    survey = tiles._survey
    facts = replace(tiles.facts, seed=sky)
    source = tiles.source
    whole = Sky(facts, survey.profile, survey.obscuration, source, tiles._counts, 0.0)
    low = Tile(columns.start, rows.stop - 1).corner(facts)
    shape = (TILE_PX * len(rows), TILE_PX * len(columns))
    light = np.zeros((len(facts.bands), *shape))
    per_cell = CELL_ARCSEC / facts.pixel_scale
    cells = [
        range(int((a - 400) / per_cell), int((a + n + 400) / per_cell) + 1) for a, n in zip(low, shape, strict=True)
    ]
    for cell in ((row, column) for row in cells[0] for column in cells[1]):
        picture = paint(whole, cell)
        height, width = picture.brightest.shape
        field = slice(max(picture.row, low[0]), min(picture.row + height, low[0] + shape[0]))
        along = slice(max(picture.column, low[1]), min(picture.column + width, low[1] + shape[1]))
        if field.start < field.stop and along.start < along.stop:
            here = slice(field.start - picture.row, field.stop - picture.row)
            there = slice(along.start - picture.column, along.stop - picture.column)
            light[:, field.start - low[0] : field.stop - low[0], along.start - low[1] : along.stop - low[1]] += (
                picture.light[:, here, there]
            )
    return light


def test_tiles_put_together_are_the_field_that_is_painted_whole(monkeypatch):
    monkeypatch.setattr("galaxies.mock_field.tiles._SEEDS", 2**62)  # as the field draws them
    tiles = light_tiles()
    columns, rows = range(-1, 1), range(4, 6)
    found = [np.concatenate([tiles.light(5, Tile(c, r)) for c in columns], 2) for r in reversed(rows)]
    whole = painted_whole(tiles, 5, columns, rows)
    assert (whole.max((1, 2)) > 100).all()  # nJy: there is something
    # A tenth of the sky's noise is where wings are cut off.
    noise = np.array([band.sky_noise for band in tiles.facts.bands])[:, None, None]
    np.testing.assert_allclose(np.concatenate(found, 1), whole, rtol=1e-3, atol=0.01 * noise.min())


def test_a_sky_has_as_many_galaxies_as_are_counted():
    tiles = light_tiles(faintest=24.0)
    magnitude = np.concatenate(
        [tiles.magnitudes(tiles.sources(2, Tile(c, r))) for c in range(-10, 10) for r in range(90, 110)]
    )
    area = 400 * (TILE_PX * 0.2 / 60) ** 2
    for faint in (21, 22, 23, 24):  # LSST Science Book: 46 10^(0.31 (i - 25)) to i, from 17 on
        expected = area * 46 * (10 ** (0.31 * (faint - 25)) - 10 ** (0.31 * (17 - 25)))
        assert abs((magnitude < faint).sum() - expected) < 5 * math.sqrt(expected)


def test_galaxies_lie_in_their_tile_and_in_no_other():
    tiles = light_tiles(faintest=24.0)
    rows = {c: tiles.sources(2, Tile(c, 0)) for c in (-1, 0, 1)}
    assert all(len(found) > 3 for found in rows.values())
    seeds = np.concatenate([found["seed"] for found in rows.values()])
    assert len(np.unique(seeds)) == len(seeds) and seeds.max() < 2**31
    for found in rows.values():
        assert (np.diff(tiles.magnitudes(found)) >= 0).all()
    again, other = tiles.sources(2, Tile(0, 0)), tiles.sources(3, Tile(0, 0))
    assert again.tobytes() == rows[0].tobytes() and not np.isin(other["seed"], seeds).any()


def test_another_survey_sees_the_same_sky():
    """The same magnitudes and sizes at the same places, to the half pixel by which the middles lie apart."""
    sharp, coarse = light_tiles("Euclid_VIS", None, 22.0), light_tiles(faintest=22.0)
    wide = np.concatenate([coarse.sources(7, Tile(c, r)) for c in (0, 1) for r in (-1, 0)])
    fine = np.concatenate(
        [sharp.sources(7, Tile(c, r)) for c in range(4) for r in range(-2, 2)]
    )  # half as large pixels
    common = np.intersect1d(wide["seed"], fine["seed"])
    assert len(common) == len(wide) == len(fine) > 10
    for rows in (wide, fine):
        rows.sort(order="seed")
    np.testing.assert_array_equal(wide["magnitude_i"], fine["magnitude_IE"])
    np.testing.assert_array_equal(wide["size_arcsec"], fine["size_arcsec"])
    for axis, size in (("x", "width_px"), ("y", "height_px")):
        places = [
            (rows[axis] + 0.5 - getattr(tiles.facts, size) / 2) * tiles.facts.pixel_scale
            for rows, tiles in ((wide, coarse), (fine, sharp))
        ]
        np.testing.assert_allclose(*places, atol=0.15)


def test_a_shallow_survey_is_not_asked_for_what_it_cannot_see():
    """SDSS sees stars to i = 21.3 at 95 % completeness (York et al. 2000), LSST far beyond 25."""
    faintest = {}
    for survey in ("SDSS", "LSST"):
        tiles = light_tiles(survey, faintest=25.0)
        rows = np.concatenate([tiles.sources(2, Tile(column, 0)) for column in range(10)])
        faintest[survey] = tiles.magnitudes(rows).max()
    assert 21.3 < faintest["SDSS"] < 23.5 and 24.8 < faintest["LSST"] <= 25


def test_the_ends_of_the_sky_can_be_drawn():
    tiles = light_tiles("Euclid_VIS", None, 21.0)
    for place in (FIRST, LAST):
        assert tiles.picture(1, Tile(place, place)).shape == (TILE_PX, TILE_PX, 3)


def test_a_galaxy_is_where_the_list_says_and_its_picture_stands_upright():
    tiles = light_tiles("Euclid_VIS", None, 19.5)
    places = ((c, r) for c in range(40) for r in range(8))
    tile = next(Tile(*p) for p in places if len(tiles.sources(1, Tile(*p))) == 1)
    ((x, y),) = places_in(tile, tiles.facts, tiles.sources(1, tile))
    picture = tiles.picture(1, tile).astype(float).sum(2)
    inside = slice(max(0, int(y) - 8), int(y) + 9), slice(max(0, int(x) - 8), int(x) + 9)
    assert picture[inside].mean() > picture.mean() + 5 * picture.std() / 17


# Of pictures


def blob(side=64, peak=(120, 80, 40), width=6.0, level=0.0, noise=0.0, seed=0):
    axis = torch.arange(side) - (side - 1) / 2
    light = torch.exp(-(axis**2 + axis[:, None] ** 2) / (2 * width**2)) * torch.tensor(peak)[:, None, None]
    grain = noise * torch.randn(3, side, side, generator=torch.Generator().manual_seed(seed))
    return (light + level + grain).round().clamp(0, 255).to(torch.uint8)


QUIET = Backdrop(np.array([10.0, 12.0, 14.0]), np.zeros((3, 3)), np.eye(9)[4][:, None] * np.eye(9)[4])


def picture_tiles(picture, size, backdrop=QUIET, faintest=22.0):
    def draw(names, seeds):
        assert len(names) == len(seeds) and set(names) <= set(PARTS)
        return torch.stack([picture] * len(names)), np.full(len(names), size)

    return PictureTiles(PARTS, faintest, draw, lambda: backdrop)


def lonely(tiles, least=40):
    """A tile with a galaxy far from its rim and from others, and where it lies and how large it is."""
    for column in range(200):
        tile = Tile(column, 0)
        rows = tiles.sources(4, tile)
        near = tiles._near(4, tile, 64.0)
        if len(rows) == 1 and len(near) == 1:
            ((x, y),) = places_in(tile, tiles.facts, rows)
            if least < min(x, y) and max(x, y) < TILE_PX - least:
                return tile, x, y, rows["size_arcsec"][0] / 0.1
    raise AssertionError


def test_a_picture_is_laid_down_where_and_as_large_as_it_is_counted():
    width = 6.0
    half_light = width * math.sqrt(2 * math.log(2))  # of a Gaussian in two dimensions
    tiles = picture_tiles(blob(width=width), half_light / 64)
    tile, x, y, radius = lonely(tiles)
    light = tiles.picture(4, tile) - QUIET.level
    weight = light.sum(2)
    row, column = np.mgrid[:TILE_PX, :TILE_PX] + 0.5
    assert (weight * column).sum() / weight.sum() == pytest.approx(x, abs=0.6)  # whole pixels
    assert (weight * row).sum() / weight.sum() == pytest.approx(y, abs=0.6)
    distance = np.hypot(column - x, row - y)
    found = weight[distance < radius].sum() / weight.sum()
    assert found == pytest.approx(0.5, abs=0.08)
    brightest = light.reshape(-1, 3).max(0)
    np.testing.assert_allclose(brightest, (120, 80, 40), atol=8)


def test_no_frame_is_to_be_seen():
    """A picture of a level sky that fills its frame with light of its own leaves no square and no step."""
    flat = torch.full((3, 64, 64), 40, dtype=torch.uint8)
    tiles = picture_tiles(flat, 0.1)
    assert (tiles.picture(4, lonely(tiles)[0]) == QUIET.level).all()
    bright = blob(width=40.0)  # far wider than its frame
    tiles = picture_tiles(bright, 0.35)
    tile, x, y, radius = lonely(tiles)
    light = (tiles.picture(4, tile) - QUIET.level).sum(2)
    row, column = np.mgrid[:TILE_PX, :TILE_PX] + 0.5
    side = radius / 0.35
    assert (light[np.hypot(column - x, row - y) > side / 2 + 1] == 0).all()
    assert light.max() > 40
    assert np.abs(np.diff(light, axis=1)).max() < light.max() / 3


def test_galaxies_add_up_and_meet_at_the_rims_of_tiles():
    tiles = picture_tiles(blob(), 0.12, faintest=24.0)
    rows = [[tiles.picture(9, Tile(c, r)) - QUIET.level for c in range(3)] for r in range(3)]
    whole = np.concatenate([np.concatenate(row, 1) for row in rows], 0)
    steps = np.abs(np.diff(whole, axis=1)).max((0, 2))
    at_rims = steps[[TILE_PX - 1, 2 * TILE_PX - 1]]
    assert at_rims.max() <= np.quantile(steps, 0.99) and whole.max() > 100
    counted = sum(len(tiles.sources(9, Tile(c, r))) for c in range(3) for r in range(3))
    assert counted > 20


def grain(side, seed, strength=6.0):
    """Noise whose neighbours hang together, and whose planes do: known by how it is made."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((3, side + 1, side + 1)) + 1.5 * rng.standard_normal((side + 1, side + 1))
    white /= math.sqrt(1 + 1.5**2)
    return strength * (white[:, 1:, 1:] + white[:, :-1, 1:] + white[:, 1:, :-1] + white[:, :-1, :-1]) / 2


def test_the_sky_has_the_level_and_the_grain_of_the_pictures():
    pictures = torch.from_numpy(np.stack([grain(64, k) for k in range(40)]) + 60).round().to(torch.uint8)
    backdrop = Backdrop.of(pictures)
    np.testing.assert_allclose(backdrop.level, 60, atol=1)
    drawn = backdrop.grain(np.random.default_rng(1), 256)
    assert drawn.std((1, 2)) == pytest.approx([6.0] * 3, rel=0.06)
    correlation = np.corrcoef(drawn.reshape(3, -1))
    np.testing.assert_allclose(correlation[np.triu_indices(3, 1)], 1.5**2 / (1 + 1.5**2), atol=0.06)
    for (down, along), expected in {(0, 1): 0.5, (1, 0): 0.5, (1, 1): 0.25, (0, 3): 0.0}.items():
        found = (drawn * np.roll(drawn, (-down, -along), (1, 2))).mean() / drawn.var()
        assert found == pytest.approx(expected, abs=0.06)


def test_the_grain_is_the_same_with_and_without_a_galaxy():
    pictures = torch.from_numpy(np.stack([grain(64, k) for k in range(40)]) + 60).round().to(torch.uint8)
    tiles = picture_tiles(pictures[0], 0.06, Backdrop.of(pictures), faintest=19.5)  # of nothing but grain
    tile, x, y, radius = lonely(tiles)
    seen = tiles.picture(4, tile).astype(float)
    row, column = np.mgrid[:TILE_PX, :TILE_PX] + 0.5
    distance, side = np.hypot(column - x, row - y), min(128, radius / 0.06)
    inside, outside = seen[distance < 0.25 * side], seen[distance > 0.6 * side]
    assert inside.std() == pytest.approx(outside.std(), rel=0.35)
    assert inside.mean() == pytest.approx(outside.mean(), abs=2.5)


def test_a_window_is_whole_in_the_middle_and_nothing_in_the_corners():
    found = window(64).numpy()
    assert found[32, 32] == 1 and found[0, 0] == 0 and found.min() >= 0 and found.max() <= 1
    np.testing.assert_array_equal(found, found[::-1, ::-1])
