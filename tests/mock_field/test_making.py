"""A field: its sources have the flux, place and noise that the truth tells, in whatever way it was made."""

import math
import warnings

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.wcs import WCS

import observe
from galaxies.common.errors import UserError
from galaxies.mock_field import making, painting
from galaxies.mock_field.counts import BRIGHT_SLOPE, FAINT_SLOPE, CatalogueCounts, DeepCounts, star_magnitudes
from galaxies.mock_field.field_folder import MockField
from galaxies.mock_field.making import facts_of
from galaxies.mock_field.painting import observed_at, shapes_of
from galaxies.telescope.observing import resampled
from galaxies.telescope.psf import Psf
from galaxies.telescope.surveys import find_survey
from tests.conftest import tree_of

WORDS = "field --survey LSST --bands g,i --area 0.6 --faintest 23.5 --stars 6 --seed 3"


def make(out, words=WORDS, **options):
    more = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    observe.main([*words.split(), *more, "--out", str(out)])
    return MockField(out)


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    painting_cells, painting.CELL_ARCSEC = painting.CELL_ARCSEC, 24.0  # several cells in a small field
    try:
        yield make(tmp_path_factory.mktemp("fields") / "one")
    finally:
        painting.CELL_ARCSEC = painting_cells


def test_all_light_is_that_of_the_truth(field):
    truth = field.truth()
    assert set(truth["kind"].tolist()) == {b"galaxy", b"star"}
    assert truth["id"].tolist() == list(range(1, len(truth) + 1))
    # But for what falls beyond the field's edges: sources near them are left out of both.
    scale, shape = field.facts.pixel_scale, field.facts.shape
    assert field.facts.area_arcmin2 == pytest.approx(0.6, rel=0.01)
    for band in ("g", "i"):
        light = np.array(field.noiseless(band), np.float64)
        flux = 10 ** (0.4 * (31.4 - truth[f"magnitude_{band}"]))
        alone = [
            row
            for row in range(len(truth))
            if truth["kind"][row] == b"star"
            and np.sort(np.hypot(truth["x"] - truth["x"][row], truth["y"] - truth["y"][row]))[1] > 45
            and 25 < truth["x"][row] < shape[1] - 25
            and 25 < truth["y"][row] < shape[0] - 25
        ]
        assert light.sum() == pytest.approx(flux.sum(), rel=0.25) and scale == 0.2
        assert alone
        for row in alone:
            x, y = round(truth["x"][row]), round(truth["y"][row])
            assert light[y - 20 : y + 21, x - 20 : x + 21].sum() == pytest.approx(flux[row], rel=0.03)


def test_galaxies_beyond_what_can_be_drawn_are_drawn_at_its_edge_and_counted(field):
    redshift = field.truth()["redshift"][field.truth()["kind"] == b"galaxy"]
    at_edge = int((redshift == 2).sum())
    assert redshift.max() <= 2
    said = [remark for remark in field.facts.remarks if "redshift above 2" in remark]
    assert (len(said) == 1 and said[0].startswith(f"{at_edge} of {len(field.truth())} ")) if at_edge else not said
    for name in field.truth().dtype.names:
        if name not in ("kind", "morphology", "redshift", "ellipticity", "position_angle"):
            assert np.isfinite(field.truth()[name]).all()
    for band in field.facts.band_names:
        assert np.isfinite(field.image(band)).all() and np.isfinite(field.weight(band)).all()


def test_noise_is_what_the_maps_and_the_manifest_say(field):
    for band in field.facts.bands:
        light, noise = np.array(field.noiseless(band.name), np.float64), np.array(field.noise(band.name), np.float64)
        assert np.allclose(noise**2, band.sky_noise**2 + band.photons * light.clip(0), rtol=1e-5)
        assert np.allclose(field.weight(band.name) * noise**2, 1, rtol=1e-5)
        pulls = (field.image(band.name) - light) / noise
        count = pulls.size
        assert abs(pulls.mean()) < 4 / math.sqrt(count) and abs(pulls.std() - 1) < 4 / math.sqrt(2 * count)
        assert abs((pulls[1:] * pulls[:-1]).mean()) < 4 / math.sqrt(count)
        assert abs((pulls[:, 1:] * pulls[:, :-1]).mean()) < 4 / math.sqrt(count)
    g, i = (field.image(band) - field.noiseless(band) for band in ("g", "i"))
    assert abs(np.corrcoef(g.ravel(), i.ravel())[0, 1]) < 4 / math.sqrt(g.size)


def test_places_on_the_sky_and_the_map_of_sources(field):
    truth, owners = field.truth(), field.segmentation()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("g.fits", "truth.fits", "segmentation.fits", "noiseless_i.fits"):
            with fits.open(field.path / name) as units:
                units.verify("exception")
        wcs = WCS(fits.getheader(field.path / "i.fits"))
    assert np.allclose(wcs.all_pix2world(truth["x"], truth["y"], 0), (truth["ra"], truth["dec"]), atol=1e-9)
    assert set(np.unique(owners)) <= {0, *truth["id"].tolist()}
    half = field.facts.band("i").sky_noise / 2
    assert not owners[field.noiseless("i") < half].any()
    brightest = truth[np.argmin(truth["magnitude_i"])]
    assert owners[round(brightest["y"]), round(brightest["x"])] == brightest["id"]


def test_neither_who_paints_nor_strips_of_noise_change_a_byte(tmp_path, field, monkeypatch):
    def backwards(function, tasks, processes, what):
        done = {place: function(task) for place, task in reversed(list(enumerate(tasks)))}
        return iter([done[place] for place in range(len(tasks))])

    monkeypatch.setattr(making, "stream_on_processes", backwards)
    monkeypatch.setattr(making, "_ROWS_PX", 5000)
    assert len(painting_cells(field)) > 1
    left, right = tree_of(field.path), tree_of(make(tmp_path / "two", processes=2).path)
    assert left.keys() == right.keys() and len(left) == 8
    assert [name for name in left if left[name] != right[name]] == ["field.json"]  # which has the command line
    other = tree_of(make(tmp_path / "other", WORDS.replace("--seed 3", "--seed 4")).path)
    assert not [name for name in left if left[name] == other[name]]


def painting_cells(field):
    side = field.facts.width_px * field.facts.pixel_scale
    return range(math.ceil(side / painting.CELL_ARCSEC) ** 2)


@pytest.mark.slow
def test_any_number_of_processes_makes_the_same_bytes(tmp_path, field):
    # Cells have their usual size in other processes: so both are made anew.
    painting.CELL_ARCSEC = 64.0
    try:
        words = WORDS.replace("0.6", "1.6").replace("23.5", "20").replace("6 --seed", "1 --seed")
        one, two = (make(tmp_path / name, words, processes=n).path for name, n in (("a", 1), ("b", 2)))
    finally:
        painting.CELL_ARCSEC = 24.0
    left, right = tree_of(one), tree_of(two)
    assert len(left) == 8
    for name in left:
        assert left[name] == right[name] or name == "field.json"


def test_a_star_is_the_psf_where_it_is_said_to_be():
    psf = Psf.named(torch.tensor([[0.8]], dtype=torch.float64), "kolmogorov")
    light = torch.full((1, 1, 1, 1), 7.0, dtype=torch.float64)
    for moved in ((0.0, 0.0), (1.3, -0.6)):  # pixels
        move = torch.tensor([moved], dtype=torch.float64) * 4
        seen = observed_at(light, torch.tensor([0.05], dtype=torch.float64), 0.2, 64, 401, psf, move, points=True)[0, 0]
        axis = torch.arange(64, dtype=torch.float64) - 31.5
        assert seen.sum() == pytest.approx(7.0, rel=0.01)
        assert float((seen.sum(0) * axis).sum() / seen.sum()) == pytest.approx(moved[0], abs=0.01)
        assert float((seen.sum(1) * axis).sum() / seen.sum()) == pytest.approx(moved[1], abs=0.01)
    fine, still = torch.tensor([0.05], dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    still = observed_at(light, fine, 0.2, 65, 401, psf, still, points=True)
    assert torch.allclose(still[0, 0] / still.sum(), psf.image(65, 0.2)[0, 0].double(), atol=1e-5)


def test_wings_are_painted_until_they_are_below_the_noise():
    # Light of 1 within r of an Airy pattern lacks c / (2 pi r), of the cusp c and r in full widths (FT of 1 - c f).
    airy = Psf.named(torch.tensor([[0.17]]), "airy:0.36").profile
    far = torch.tensor([10.0, 40.0])
    brightness = airy.cusp / (4 * math.pi**2 * far**3)
    assert airy.reach(brightness).tolist() == pytest.approx(far.tolist(), rel=1e-5)
    assert Psf.named(torch.tensor([[0.17]]), "gaussian").profile.reach(brightness).tolist() == [0, 0]
    facts = facts_of(find_survey("Euclid_VIS"), 0.1, 1, 25.0, "", "", "")
    sky = painting.Sky(facts, "airy", 0.36, None, DeepCounts(25.0), 0.0)
    flux = torch.tensor([[1.0], [1e5], [8e5]])
    reach = painting.reach(sky, flux)
    assert reach[0] == pytest.approx(8 * 0.17) and reach[2] == pytest.approx(2 * reach[1])
    edge = 1e5 * airy.cusp * 0.17 * 0.01 / (4 * math.pi**2 * reach[1] ** 3)  # nJy in a pixel of 0.1 arcseconds
    assert edge == pytest.approx(0.1 * facts.bands[0].sky_noise, rel=1e-4)


def test_light_that_is_not_moved_is_what_the_telescope_sees():
    light = torch.rand(2, 1, 32, 32, dtype=torch.float64)
    psf, scale = Psf.named(torch.tensor([[0.7]]).double(), "moffat:3"), torch.tensor([0.1, 0.1], dtype=torch.float64)
    seen = observed_at(light, scale, 0.2, 48, 201, psf, torch.zeros(2, 2, dtype=torch.float64))
    other = resampled(light, scale, 0.2, 48, psf)
    assert torch.allclose(seen, other, atol=2e-3 * float(other.max()))


def test_waves_that_are_left_out_do_not_pass():
    # A Gaussian's transfer is exp(-2 (pi sigma f)^2); nothing passes a mirror beyond D / lambda, 1.029 over the width.
    widths = torch.tensor([[0.9, 0.7]], dtype=torch.float64)
    highest = math.sqrt(math.log(1e6) / 2) / (math.pi * 0.7 / 2.3548)
    assert painting.passband(Psf.named(widths, "gaussian")) == pytest.approx(highest, rel=0.02)
    assert painting.passband(Psf.named(widths, "airy:0")) == pytest.approx(1.029 / 0.7, rel=0.02)
    light, scale = torch.rand(2, 2, 32, 32, dtype=torch.float64), torch.tensor([0.03, 0.035], dtype=torch.float64)
    by = torch.tensor([[0.4, 1.7], [-2.2, 0.1]], dtype=torch.float64)
    for name in ("kolmogorov", "moffat:3", "double_gaussian:0.1,3", "airy:0.3"):
        psf = Psf.named(widths, name)
        waves = math.ceil(painting.passband(psf) * 0.035 * 601)
        whole, seen = (observed_at(light, scale, 0.2, 48, 601, psf, by, waves=n) for n in (None, waves))
        assert waves < 120 and float((seen - whole).abs().max()) < 2e-5 * float(whole.max())


def test_shapes_are_those_of_gaussians():
    axis = torch.arange(101, dtype=torch.float64) - 50
    x, y = axis[None, :], axis[:, None]
    angle = math.radians(30)
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    images = torch.stack([torch.exp(-(along**2 / 128 + across**2 / 32)), torch.exp(-(x**2 + y**2) / 50)])
    found = shapes_of(images, torch.tensor([0.1, 0.2], dtype=torch.float64))
    assert found["ellipticity"].tolist() == pytest.approx([0.5, 0], abs=1e-3)
    assert float(found["position_angle"][0]) == pytest.approx(30, abs=0.1)
    assert float(found["size_arcsec"][1]) == pytest.approx(0.2 * 5 * math.sqrt(2 * math.log(2)), rel=0.01)


def test_counts_have_the_slopes_and_the_number_that_they_say():
    rng = np.random.default_rng(0)
    counts = DeepCounts(27.0)
    assert DeepCounts(25.0).per_arcmin2 == pytest.approx(46, rel=0.005)  # but for those brighter than 17
    drawn = counts.draw(400_000, rng)
    number, _ = np.histogram(drawn.magnitude, np.arange(21, 27.01, 0.5))
    slopes = np.diff(np.log10(number)) / 0.5
    assert slopes[:8] == pytest.approx([BRIGHT_SLOPE] * 8, abs=0.05)
    assert slopes[-1] == pytest.approx(FAINT_SLOPE, abs=0.03)
    near, far = (np.abs(drawn.magnitude - m) < 0.25 for m in (22, 26))
    assert np.median(drawn.radius[far]) < 0.5 * np.median(drawn.radius[near])
    # The mean of z^2 exp(-z / z0) is 3 z0.
    assert drawn.redshift[near].mean() == pytest.approx(3 * (0.0417 * 22 - 0.744), rel=0.05)
    stars = star_magnitudes(100_000, 25, rng)
    assert stars.min() >= 17 and stars.max() <= 25 and (stars > 21).mean() > 0.6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--exposure 0", "an exposure of 0 seconds in band g of LSST"),
        ("--exposure g=30,z=10", "LSST has no band 'z': choose from"),
        ("--bands g,w", "LSST has no band 'w'"),
        ("--survey Nowhere", "no survey is called 'Nowhere'"),
        ("--area 1e-9", "pixels a side at 0.2 arcseconds: choose --area from"),
        ("--area 1e7", "GB and the disk has|choose --area from"),
        ("--area 0", "0 is not above 0"),
        ("--faintest 50", "50 must lie between 18 and 32"),
        ("--stars -1", "must lie between 0 and"),
        ("--counts nothing.csv --counts-area 1", r"there is no file nothing.csv"),
        ("--counts-area 1", "--counts and --counts-area go together"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(tmp_path, words, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said) as caught:
        observe.main([*WORDS.split(), *words.split(), "--out", "out"])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_galaxies_of_ones_own_catalogue(tmp_path, field):
    (tmp_path / "own.csv").write_text("magnitude,size,redshift\n21,0.4,0.5\n30,1,1\n")
    words = f"{WORDS} --counts {tmp_path / 'own.csv'} --counts-area 0.1 --stars 0"
    truth = make(tmp_path / "own", words).truth()
    assert len(truth) > 1 and np.allclose(truth["magnitude_i"], 21, atol=1e-4) and np.allclose(truth["redshift"], 0.5)
    assert np.median(truth["size_arcsec"]) == pytest.approx(0.4, rel=0.3)
    with pytest.raises(UserError, match="exists: choose another --out, or replace it with --overwrite"):
        make(tmp_path / "own", words)


def test_a_catalogue_of_counts_is_read_as_all_tables_are(tmp_path):
    (tmp_path / "own.csv").write_text("Magnitude;SIZE\n21,5;0,4\n22;-99\n")
    counts = CatalogueCounts(tmp_path / "own.csv", 27.0, 2.0)
    assert counts.per_arcmin2 == 1
    drawn = counts.draw(100, np.random.default_rng(0))
    assert set(drawn.magnitude.tolist()) == {21.5, 22.0}
    assert (drawn.radius[drawn.magnitude == 21.5] == 0.4).all()
    assert len(set(drawn.radius[drawn.magnitude == 22].tolist())) > 10  # unknown, and drawn as usual
    (tmp_path / "own.csv").write_text("magnitude,size\n21,large\n")
    with pytest.raises(UserError, match=r"own\.csv, row 2 holds 'large': it is no number"):
        CatalogueCounts(tmp_path / "own.csv", 27.0, 2.0)
