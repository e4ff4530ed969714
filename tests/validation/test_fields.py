"""What is said of a mock field, against fields of which all is known: completeness, purity, light, shapes, depth."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import norm

import evaluate
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import FIELD_EVALUATION
from galaxies.mock_field.field_folder import MockField
from galaxies.validation.field_detection import Detections, detect, point_source_snr, sections_of
from galaxies.validation.field_errors import falls_below, part, resampled, rises_above, rms
from galaxies.validation.field_evaluation import FieldSettings, evaluate_field
from galaxies.validation.field_matching import companions, match
from galaxies.validation.field_morphology import _Others, components, measure_structures
from galaxies.validation.field_observed import ObservedField
from tests.validation.mock_fields import EXPOSURE, FWHM, SCALE, Source, grid_of, light_of, psf_image, write_field

pytest.importorskip("sep")

SKY = 1.0  # nJy a pixel
PIXELS = 1 / float((psf_image().astype(float) ** 2).sum())  # whose noise a point source has
ONE_SIGMA = SKY * math.sqrt(PIXELS)  # flux of a point source of the signal-to-noise ratio 1


@pytest.fixture(scope="module")
def isolated(tmp_path_factory):
    """Bright round galaxies, far apart."""
    flux = np.geomspace(3000, 30000, 25)
    sources, side = grid_of(5, 64, flux, 0.5)
    folder = tmp_path_factory.mktemp("fields") / "isolated"
    return write_field(folder, sources, light_of(sources, side, side), SKY, 0.01, ("r", "i"))


@pytest.fixture(scope="module")
def evaluated(isolated):
    # The magnitudes here are 20.2 to 22.7.
    return evaluate_field(MockField(isolated), [0.03, 10.0, EXPOSURE], FieldSettings(morphology_limit=22))


def test_isolated_bright_galaxies_are_all_found_and_nothing_else(evaluated):
    depth = evaluated["of_folder"]
    assert (evaluated["galaxies"], evaluated["stars"], evaluated["near_the_edge"]) == (25, 0, 0)
    assert depth["completeness"]["all"]["value"] == 1
    assert (depth["purity"]["all"]["value"], depth["detections"]) == (1, 25)
    assert depth["blending"]["blended"] == part(np.zeros(25, bool))
    assert depth["completeness"]["magnitude_90"] is None  # it never falls so low


def test_all_light_of_a_gaussian_is_in_kron_apertures_in_every_band(evaluated):
    for found in evaluated["of_folder"]["photometry"].values():
        assert found["negative"] == 0
        for each in found["by_magnitude"]:
            if each["count"] >= 5:
                assert abs(each["bias"]["value"]) < 0.02
                assert each["scatter"]["value"] < 0.02


def test_true_shapes_are_round_and_what_is_measured_is_noise(evaluated):
    shapes = evaluated["of_folder"]["shapes"]
    assert shapes["measured"] == 25
    assert shapes["rms_of_truth"]["value"] == 0
    assert 0 < shapes["rms_of_measurement"]["value"] < 0.02
    assert shapes["rms"]["value"] == pytest.approx(shapes["rms_of_measurement"]["value"], abs=0.01)
    shallow = evaluated["depths"][1]["shapes"]
    assert shallow["rms_of_measurement"]["value"] > 3 * shapes["rms_of_measurement"]["value"]


def test_the_exposure_that_morphology_needs_is_found_between_the_depths(evaluated):
    parts = [depth["morphology"]["parts"] for depth in evaluated["depths"]]
    assert [each["detected"]["value"] for each in parts[1:]] == [1, 1]
    assert parts[0]["morphology"]["value"] < 0.5
    assert parts[-1]["morphology"]["value"] == 1
    assert parts[-1]["snr_per_pixel"]["value"] == 1
    needed = evaluated["needed"]
    assert 0.03 < needed["morphology"] < EXPOSURE
    assert needed["detected"] <= needed["size"] <= needed["morphology"]


def test_blends_are_no_part_of_the_galaxies_alone(evaluated, tmp_path):
    cell = evaluated["of_folder"]["morphology"]
    assert cell["alone"] == {"galaxies": cell["galaxies"], "parts": cell["parts"]}
    sources, side = grid_of(3, 96, np.full(9, 30000.0), 0.5)
    pair = [Source(s.x + 8, s.y, 3000.0, 0.5) for s in sources[:4]]
    folder = write_field(tmp_path / "pairs", sources + pair, light_of(sources + pair, side, side), SKY, 0.01)
    cell = evaluate_field(MockField(folder), (), FieldSettings(morphology_limit=21))["of_folder"]["morphology"]
    assert (cell["galaxies"], cell["alone"]["galaxies"]) == (9, 5)
    assert cell["parts"]["detected"]["count"] == 9
    assert cell["alone"]["parts"]["morphology"]["count"] == 5


def test_radii_are_right_behind_a_psf_with_wings(tmp_path):
    galsim = pytest.importorskip("galsim")
    psf, spacing, sizes = galsim.Kolmogorov(fwhm=FWHM), 72, np.geomspace(0.3, 0.8, 9)
    light, sources = np.zeros((3 * spacing, 3 * spacing)), []
    for k, size in enumerate(sizes):
        row, column = divmod(k, 3)
        galaxy = galsim.Exponential(half_light_radius=size, flux=30000.0)
        image = galsim.Convolve(galaxy, psf).drawImage(galsim.Image(spacing, spacing, scale=SCALE)).array
        light[row * spacing : (row + 1) * spacing, column * spacing : (column + 1) * spacing] = image
        middle = (spacing - 1) / 2
        sources.append(Source(column * spacing + middle, row * spacing + middle, 30000.0, size))
    image = psf.drawImage(galsim.Image(49, 49, scale=SCALE)).array
    folder = write_field(tmp_path / "kolmogorov", sources, light, SKY, 0.01, psf=image / image.sum())
    found = evaluate_field(MockField(folder), (), FieldSettings(morphology_limit=21))["of_folder"]["morphology"]
    assert found["galaxies"] == 9
    assert found["size_over_true"]["value"] == pytest.approx(1, abs=0.04)  # 1.1 if wings were no part of the PSF
    assert found["parts"]["size"]["value"] == 1


def test_noise_without_sources_is_impure(tmp_path):
    empty = np.zeros((300, 300), np.float32)
    far = [Source(150, 150, 1e-3)]  # a field without any is refused
    folder = write_field(tmp_path / "noise", far, empty, SKY)
    found = evaluate_field(MockField(folder), (), FieldSettings(threshold=3.5))["of_folder"]
    assert found["detections"] >= 5
    assert found["purity"]["all"]["value"] == 0
    assert found["completeness"]["all"]["value"] == 0


def test_completeness_of_points_follows_their_signal_to_noise_ratio(tmp_path):
    # A source's peak is normal about its signal-to-noise ratio, and a little higher where noise moves it.
    ratios = np.repeat([3.0, 4.0, 5.0, 6.0, 7.0], 180)
    sources, side = grid_of(30, 32, ratios * ONE_SIGMA, 0.0)
    folder = write_field(tmp_path / "points", sources, light_of(sources, side, side), SKY)
    cells = evaluate_field(MockField(folder))["of_folder"]["completeness"]["by_magnitude"]
    for ratio in (3.0, 4.0, 5.0, 6.0, 7.0):
        magnitude = 31.4 - 2.5 * math.log10(ratio * ONE_SIGMA)
        cell = next(each for each in cells if each["low"] <= magnitude < each["high"])
        others = [
            r for r in (3.0, 4.0, 5.0, 6.0, 7.0) if cell["low"] <= 31.4 - 2.5 * math.log10(r * ONE_SIGMA) < cell["high"]
        ]
        expected = np.mean([norm.sf(5 - math.hypot(r, 1)) for r in others])  # the peak's mean square is one more
        assert cell["value"] == pytest.approx(expected, abs=0.12), ratio


def test_the_map_of_signal_to_noise_has_unit_variance_and_a_points_true_ratio_at_its_peak():
    noise = np.full((128, 160), 2.0, np.float32)
    image = 2 * np.random.default_rng(0).standard_normal(noise.shape).astype(np.float32)
    assert point_source_snr(image, noise, psf_image())[20:-20, 20:-20].std() == pytest.approx(1, abs=0.05)
    point = light_of([Source(80, 64, 500.0)], 128, 160)
    peak = point_source_snr(point, noise, psf_image())[64, 80]
    assert peak == pytest.approx(500 / 2 / math.sqrt(PIXELS), rel=1e-3)
    noise[60:70, :] = np.nan
    assert np.isfinite(point_source_snr(point, noise, psf_image())).all()


def test_sections_find_what_the_whole_finds(tmp_path):
    flux = np.random.default_rng(1).uniform(100, 3000, 144)
    sources, side = grid_of(12, 30, flux, 0.6)
    field = MockField(write_field(tmp_path / "f", sources, light_of(sources, side, side), SKY))
    found = []
    for length, margin in ((2000, 0), (100, 60)):
        places = []
        for section in sections_of(side, side, length, margin):
            images, noise = ObservedField(field).planes(section.rows, section.columns)
            seen = detect(images, noise, field.psf("r"), 0, section).detections
            places += list(zip(seen.x, seen.y, seen.flux[:, 0], strict=True))
        found.append(np.array(sorted(places)))
    assert len(found[0]) == len(found[1]) > 100
    np.testing.assert_allclose(*found, rtol=1e-3)
    section = next(sections_of(side, side))
    whole = detect(*ObservedField(field).planes(section.rows, section.columns), field.psf("r"), 0, section).detections
    nearest = [
        min(sources, key=lambda s: (s.x - x) ** 2 + (s.y - y) ** 2) for x, y in zip(whole.x, whole.y, strict=True)
    ]
    pull = (whole.flux[:, 0] - [s.flux for s in nearest]) / whole.flux_error[:, 0]
    assert 0.7 < np.std(pull) < 1.3  # as large as the noise in the apertures says


def test_each_pixel_is_one_sections_own():
    owned = np.zeros((250, 330), int)
    for section in sections_of(330, 250, 100, 20):
        owned[section.own_rows, section.own_columns] += 1
        assert section.rows.start <= section.own_rows.start
        assert section.columns.stop >= section.own_columns.stop
    assert (owned == 1).all()


def test_new_noise_has_the_surveys_size_and_is_the_same_however_it_is_read(tmp_path):
    sources = [Source(150, 150, 1e6, 3.0)]
    light = light_of(sources, 300, 300)
    field = MockField(write_field(tmp_path / "f", sources, light, SKY, photons=0.5))
    observed = ObservedField(field, EXPOSURE / 4, seed=3)
    image, noise = observed.read(0, slice(0, 300), slice(0, 300))
    np.testing.assert_allclose(noise, 2 * np.sqrt(SKY**2 + 0.5 * light), rtol=1e-5)
    assert ((image - light) / noise).std() == pytest.approx(1, abs=0.01)
    part_, _ = observed.read(0, slice(200, 290), slice(250, 300))
    np.testing.assert_array_equal(part_, image[200:290, 250:300])
    assert not np.array_equal(
        ObservedField(field, EXPOSURE / 4, seed=4).read(0, slice(0, 9), slice(0, 9))[0], image[:9, :9]
    )
    _, deep = observed.deep(0, slice(0, 300), slice(0, 300))
    np.testing.assert_allclose(deep, noise / 20, rtol=1e-5)


def test_the_brightest_takes_the_nearest_and_nothing_is_taken_twice():
    truth = np.array([[0.0, 0.0], [1.0, 0.0], [50.0, 0.0], [80.0, 0.0]])
    flux = np.array([10.0, 100.0, 10.0, 1.0])
    places = np.array([[0.4, 0.0], [2.5, 0.0], [50.0, 3.5], [80.0, 0.0]])
    matches = match(truth, flux, np.full(4, 3.0), places, np.array([90.0, 9.0, 10.0, 20.0]))
    assert matches.detection.tolist() == [1, 0, -1, -1]  # one too far, and one far too bright
    assert matches.truth.tolist() == [1, 0, -1, -1]
    assert match(truth[:2] / 2, np.array([50.0, 100.0]), np.full(2, 3.0), places[:1], flux[:1]).detection.tolist() == [
        -1,
        0,
    ]
    assert match(truth[:0], flux[:0], np.zeros(0), places, flux).truth.tolist() == [-1] * 4


def test_sources_in_one_isophote_are_companions():
    parents = np.array([[1, 1, 0], [0, 0, 2]])
    assert companions(parents, np.array([0, 0, 1, 0]), np.array([0, 1, 2, 2])).tolist() == [1, 1, 0, -1]


def test_blends_are_counted_whether_they_are_told_apart_or_not(tmp_path):
    sources = []
    for k in range(25):
        x, y = 64 * (k % 5) + 40, 64 * (k // 5) + 40
        apart = 2 if k < 10 else 8 if k < 20 else None  # pixels; the PSF has four
        sources.append(Source(x, y, 2000.0, 0.2))
        if apart:
            sources.append(Source(x + apart, y, 1500.0, 0.2))
    field = MockField(write_field(tmp_path / "f", sources, light_of(sources, 330, 330), 0.5))
    blending = evaluate_field(field)["of_folder"]["blending"]
    in_sections = evaluate_field(field, (), FieldSettings(section_px=150, margin_px=40))["of_folder"]["blending"]
    assert in_sections == blending
    assert blending["blended"]["count"] == 45
    assert blending["blended"]["value"] == pytest.approx(40 / 45)
    assert blending["unrecognised"]["value"] == pytest.approx(10 / 45)  # one of each close pair
    assert blending["recognised_of_blended"]["value"] == pytest.approx(30 / 40)


def test_a_source_is_placed_between_pixels(tmp_path):
    sources = [Source(40.4, 39.7, 5000.0)]
    field = MockField(write_field(tmp_path / "f", sources, light_of(sources, 81, 71), SKY))
    section = next(sections_of(71, 81))
    found = detect(*ObservedField(field).planes(section.rows, section.columns), field.psf("r"), 0, section).detections
    assert (found.x[0], found.y[0]) == pytest.approx((40.4, 39.7), abs=0.06)


def test_a_neighbours_pixels_are_those_of_its_ellipse_that_are_not_the_galaxys_own():
    # The galaxy at (116, 216) is round; its neighbour is long, along the diagonal that rises in x and y.
    column = {name: np.zeros(2) for name in ("snr", "flux", "flux_error", "half_light_radius", "parent")}
    ellipse = {"a": np.array([2.0, 4.0]), "b": np.array([2.0, 1.0]), "theta": np.array([0.0, math.pi / 4])}
    found = Detections(x=np.array([116.0, 124.0]), y=np.array([216.0, 224.0]), **column, **ellipse)
    mask = _Others(found).mask(0, 100, 200, 48)
    assert mask[24, 24]
    assert mask[29, 29]  # 1.8 standard deviations along it
    assert not mask[29, 19]  # 7 across it
    assert not mask[16, 16]
    assert not mask[17, 17]  # 2.5 from the neighbour and 0.7 from the galaxy
    assert not mask[36, 36]  # nearer to the neighbour, and 4.2 from it
    assert not mask[10, 31]
    assert not _Others(found.chosen(np.array([0]))).mask(0, 100, 200, 48).any()


def test_the_pixels_of_a_neighbour_are_left_out(tmp_path):
    sources = [Source(60.2, 60.4, 3000.0, 0.4), Source(70.1, 60.0, 6000.0, 0.4)]
    field = MockField(write_field(tmp_path / "f", sources, light_of(sources, 121, 131), SKY))
    observed, section = ObservedField(field), next(sections_of(131, 121))
    found = detect(*observed.planes(section.rows, section.columns), field.psf("r"), 0, section).detections
    order = np.argsort(found.x)
    x, y = (np.array([getattr(source, axis) for source in sources]) for axis in "xy")
    np.testing.assert_allclose(np.stack([found.x, found.y])[:, order], [x, y], atol=0.3)
    seen = measure_structures(observed, x, y, np.full(2, 0.4), found, order)
    np.testing.assert_allclose(seen.size_arcsec, 0.4, rtol=0.15)
    alone = found.chosen(order[:1])
    blended = measure_structures(observed, x[:1], y[:1], np.full(1, 0.4), alone, np.array([0]))
    assert abs(blended.asymmetry[0]) > abs(seen.asymmetry[0])


def test_components_of_ellipticities_turn_with_the_galaxy():
    e1, e2 = components(np.array([0.5, 0.5, 0.5]), np.array([0.0, 45.0, 90.0]))
    np.testing.assert_allclose(e1, [1 / 3, 0, -1 / 3], atol=1e-12)
    np.testing.assert_allclose(e2, [0, 1 / 3, 0], atol=1e-12)


def test_errors_of_parts_are_wilsons_and_of_medians_by_bootstrap():
    cell = part(np.arange(10) < 7)
    # Wilson 1927 with z = 1: (p + 1/2n ± sqrt(p q / n + 1/4n²)) / (1 + 1/n)
    half = math.sqrt(0.7 * 0.3 / 10 + 1 / 400) / 1.1
    assert cell["interval"] == pytest.approx([0.75 / 1.1 - half, 0.75 / 1.1 + half])
    assert part(np.zeros(0, bool))["value"] is None
    values = np.random.default_rng(0).standard_normal(4000)
    low, high = resampled(values, rms)["interval"]
    assert (high - low) / 2 == pytest.approx(1 / math.sqrt(2 * 4000), rel=0.2)
    assert resampled(values[:4], rms) == {"count": 4, "value": None, "interval": None}


def test_where_curves_pass_a_level():
    assert falls_below([20, 21, 22, 23], [1.0, 0.4, 1.0, 0.0], 0.5) == 22.5  # an early dip does not count
    assert falls_below([20, 21], [1.0, 0.9], 0.5) is None
    assert falls_below([20, 21, 22], [1.0, None, 0.0], 0.5) == 21
    assert rises_above([1, 100], [0.8, 1.0], 0.9) == pytest.approx(10)
    assert rises_above([5, 100], [0.95, 1.0], 0.9) == 5
    assert rises_above([1, 100], [0.1, 0.2], 0.9) is None


def test_the_command_writes_what_it_found(isolated, tmp_path, capsys):
    out = tmp_path / "out"
    evaluate.main(["field", str(isolated), "--compare-exposures", "1000,10", "--most", "9", "--out", str(out)])
    line, wrote = capsys.readouterr().out.splitlines()
    assert line.startswith("25 galaxies: half complete nowhere to r = ")
    assert "purity 100.0%" in line
    assert wrote == f"wrote {out / 'evaluation.md'}"
    assert {path.name for path in out.iterdir()} == set(FIELD_EVALUATION.files)
    result = json.loads((out / "evaluation.json").read_text())
    assert [depth["exposure_s"] for depth in result["depths"]] == [10, 1000]
    table = (out / "evaluation.csv").read_text().splitlines()
    assert table[0].startswith("exposure_s,quantity,against,low,high,count,value")
    assert ",completeness,,,,25,1," in table[1]
    assert "| 10 s | 1000 s |" in (out / "evaluation.md").read_text()
    again = evaluate_field(MockField(isolated), [10.0], FieldSettings(most=9))
    assert json.loads(json_text(again["depths"][0])) == result["depths"][0]


@pytest.mark.parametrize("words", ["0", "x", "30,", "1e-9", "nan", ",".join(["3"] * 21)])
def test_exposures_that_are_none_are_refused(isolated, words):
    with pytest.raises(UserError, match="compare-exposures"):
        evaluate.main(["field", str(isolated), "--compare-exposures", words])


def test_what_is_no_field_is_refused_in_a_sentence(isolated, tmp_path):
    with pytest.raises(UserError, match="holds no mock field"):
        evaluate.main(["field", str(tmp_path)])
    stars = [Source(60, 60, 1000.0, 0.0, "star")]
    only = write_field(tmp_path / "stars", stars, light_of(stars, 120, 120), SKY)
    with pytest.raises(UserError, match="has no galaxies"):
        evaluate.main(["field", str(only)])
    sources = [Source(60, 60, 1000.0, 0.5)]
    damaged = write_field(tmp_path / "damaged", sources, light_of(sources, 120, 120), SKY)
    for name in ("noiseless_r.fits", "r.fits", "truth.fits"):
        (damaged / name).unlink()
        with pytest.raises(UserError, match=name):
            evaluate.main(["field", str(damaged)])
    with pytest.raises(UserError, match="one of the inputs"):
        evaluate.main(["field", str(isolated), "--out", str(isolated)])


@pytest.mark.parametrize("count", [150, pytest.param(2400, marks=pytest.mark.slow)])
def test_galaxies_that_galsim_draws_are_as_complete_as_our_telescopes(tmp_path, count):
    galsim = pytest.importorskip("galsim")
    import torch

    from galaxies.mock_survey.sersic import SersicTransform
    from galaxies.telescope.fourier import FourierGrid
    from galaxies.telescope.profiles import kolmogorov
    from galaxies.telescope.psf import Psf

    side, fwhm, half = round(34 * math.sqrt(count)), 0.8, 32
    stream = np.random.default_rng(5)
    flux = 10 ** (0.4 * (31.4 - stream.uniform(23, 27.5, count)))
    sizes = np.exp(stream.normal(math.log(0.35), 0.4, count)).clip(0.1, 1.2)
    places = stream.uniform(10, side - 10, (count, 2))
    q, angle = stream.uniform(0.3, 1, count), stream.uniform(0, 180, count)
    sources = [
        Source(x, y, f, s, "galaxy", 1 - b, a)
        for (x, y), f, s, b, a in zip(places.tolist(), flux, sizes, q, angle, strict=True)
    ]
    ours, theirs = np.zeros((2, side + 2 * half, side + 2 * half))
    grid = FourierGrid(2 * half, torch.tensor([SCALE]))
    sersic, seeing = SersicTransform(), Psf(torch.tensor([[fwhm]]), kolmogorov).transfer(grid)[:, 0]
    psf = galsim.Kolmogorov(fwhm=fwhm)
    for source, size, ratio in zip(sources, sizes, q, strict=True):
        left, top = round(source.x) - half, round(source.y) - half
        box = slice(top + half, top + 3 * half), slice(left + half, left + 3 * half)
        dx, dy = source.x - left - (half - 0.5), source.y - top - (half - 0.5)
        a, b = size / math.sqrt(ratio), size * math.sqrt(ratio)
        turn = torch.tensor([math.radians(source.angle)])
        u, v = grid.turned(turn)
        frequency = (u.square() * a**2 + v.square() * b**2).sqrt()
        light = sersic(frequency, torch.tensor([1.0])) * seeing * grid.square() * grid.origin
        light = light * grid.shift(torch.tensor([dx * SCALE]), torch.tensor([dy * SCALE]))
        ours[box] += source.flux * grid.image(light)[0].numpy()
        galaxy = galsim.Exponential(half_light_radius=size, flux=source.flux)
        galaxy = galaxy.shear(q=ratio, beta=source.angle * galsim.degrees)
        image = galsim.Image(2 * half, 2 * half, scale=SCALE)
        theirs[box] += galsim.Convolve(galaxy, psf).drawImage(image, offset=(dx, dy)).array
    image = galsim.Image(33, 33, scale=SCALE)
    blur = psf.drawImage(image).array / image.array.sum()
    found = []
    for name, light, seed in (("ours", ours, 0), ("galsim", theirs, 1)):
        light = light[half:-half, half:-half]
        folder = write_field(tmp_path / name, sources, light, 4.0, psf=blur, fwhm=fwhm, seed=seed)
        found.append(evaluate_field(MockField(folder), (), FieldSettings(most=100))["of_folder"])
    assert np.abs(ours - theirs).max() < 0.004 * theirs.max()
    pulls = []
    for one, other in zip(*(depth["completeness"]["by_magnitude"] for depth in found), strict=True):
        error = math.hypot(*((cell["interval"][1] - cell["interval"][0]) / 2 for cell in (one, other)))
        pulls.append((one["value"] - other["value"]) / error)
    assert max(map(abs, pulls)) < 3
    assert rms(np.array(pulls)) < 1.3
    halves = [depth["completeness"]["magnitude_50"] for depth in found]
    assert halves[0] == pytest.approx(halves[1], abs=0.1 * math.sqrt(2400 / count))
    assert 24 < halves[0] < 27


def test_the_field_that_galsim_draws_is_read_and_its_radii_are_circles(tmp_path):
    pytest.importorskip("galsim")
    pytest.importorskip("surveycodex")
    from tests.validation.galsim_field import circle_radius, draw_field

    assert circle_radius(1.0, False) == pytest.approx(1, rel=0.02)
    assert circle_radius(1.0, True) == pytest.approx(1, rel=0.05)
    assert circle_radius(0.3, False) > 1.1
    draw_field(tmp_path / "f", 0.25)
    found = evaluate_field(MockField(tmp_path / "f"), (), FieldSettings(most=5))
    assert found["of_folder"]["limiting_magnitude"] == pytest.approx(27.2, abs=0.1)
    assert found["of_folder"]["purity"]["all"]["value"] > 0.9
