"""Fields of a trained generator: what is asked of it, what is scaled, and what any survey's bands get of it."""

import json
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import observe
from galaxies.common.errors import UserError
from galaxies.datasets.population import Population
from galaxies.mock_field import making, painting, trained_light
from galaxies.mock_field.field_folder import MockField
from galaxies.mock_field.making import reference_of
from galaxies.mock_field.painting import shapes_of
from galaxies.mock_field.sources import MOCK_PARTS, Requests
from galaxies.mock_field.trained_light import TrainedLight
from galaxies.telescope.filters import band_weights
from galaxies.telescope.surveys import find_survey
from tests.conftest import tree_of
from tests.generation.painted import GRIZ, light_painting_sampler, write_flux_checkpoint
from tests.mock_field.test_painted_cells import interrupted

WORDS = "field --survey LSST --bands g,i --area 0.3 --faintest 24 --stars 3 --seed 3"


@pytest.fixture
def painter(monkeypatch, tmp_path):
    """Return what makes the source of painted galaxies for a survey."""
    sampler = light_painting_sampler()
    sampler.origin = {"run": "painted", "step": "3", "source": "nothing", "credit": "nobody"}
    monkeypatch.setattr(trained_light.GalaxySampler, "from_checkpoint", lambda path, device: sampler)
    (tmp_path / "painted.pt").write_bytes(b"")

    def source(survey="LSST", bands=None, exposure=None):
        found = find_survey(survey, bands)
        return TrainedLight(tmp_path / "painted.pt", found, reference_of(found)), sampler

    return source


def asked(magnitude, radius, redshift, seeds=(5, 6, 7), label="disc"):
    def ones(value):
        return np.full(len(seeds), value)

    return Requests(ones(float(magnitude)), ones(float(radius)), ones(redshift), ones(label), np.array(seeds, np.int64))


def drawn(source, wanted):
    """Return light (N, B, L, L) of all, which is of one size here, its pixel scales and redshifts."""
    (group,) = source.draw(wanted)
    assert group.rows.tolist() == list(range(len(wanted.seed)))
    return group.images, group.pixel_scale, group.redshift


def half_light(images, scale):
    return shapes_of(images[:, 0].double(), scale.double())["size_arcsec"].numpy()


def test_what_the_generator_knows_is_drawn_as_asked_in_the_filters_of_the_survey(painter):
    source, sampler = painter(bands=["r", "g", "z"])
    wanted = asked(20.0, 0.8, 0.5)
    images, scale, redshift = drawn(source, wanted)
    assert images.dtype == torch.float32 and images.min() >= 0
    assert scale.tolist() == pytest.approx([0.1] * 3) and redshift.tolist() == [0.5] * 3
    # Flux is exact in the reference band, z; the color is the one of a real galaxy that resembles the request.
    fluxes = images.double().sum((2, 3))
    assert fluxes[:, 2].numpy() == pytest.approx([10 ** (0.4 * (31.4 - 20))] * 3, rel=1e-5)
    told = torch.tensor([[20.0, math.nan, 0.8, 0.5]] * 3)
    color = sampler.complete_all(torch.zeros(3, dtype=torch.int64), told, wanted.seed)[:, 1].double()
    assert color.min() > 0 and len(color.unique()) == 3
    own = 10 ** (0.4 * color[:, None] * torch.arange(4.0))  # of the generator's g, r, i, z
    seen = own @ band_weights(sampler.config.wavelengths, find_survey("LSST", ["r", "g", "z"]).bands).double().T
    torch.testing.assert_close(fluxes / fluxes[:, 2:], seen / seen[:, 2:], rtol=1e-4, atol=0)
    assert set(source.replaced(wanted).values()) == {0}


def test_what_is_fainter_and_smaller_is_the_nearest_galaxy_dimmed_and_shrunk(painter):
    source, sampler = painter(bands=["r"])
    (_, high_m), (low_r, _), (_, high_z) = (sampler.supported[0][k] for k in (0, 2, 3))
    assert high_m < 22 and low_r > 0.4 and high_z < 1
    images, scale, redshift = drawn(source, asked(26.0, 0.1, 1.7))
    known, natural, far = drawn(source, asked(high_m, low_r, high_z))
    assert redshift.tolist() == far.tolist() == pytest.approx([high_z] * 3)
    torch.testing.assert_close(scale, natural * (0.1 / low_r))
    torch.testing.assert_close(images, known * 10 ** (-0.4 * (26 - high_m)), rtol=1e-4, atol=0)
    # So the surface brightness is what magnitude and radius say: mean within the half-light circle, mag / arcsec^2.
    sizes = half_light(images, scale)
    assert sizes == pytest.approx(half_light(known, natural) * 0.1 / low_r, rel=1e-5)
    brightness = [26 + 2.5 * math.log10(2 * math.pi * size**2) for size in (sizes[0], 0.1)]
    assert brightness[0] == pytest.approx(brightness[1], abs=0.2)
    assert list(source.replaced(asked(26.0, 0.1, 1.7)).values())[:3] == [3, 0, 3]


def test_a_galaxy_that_fills_its_frame_shows_no_frame(painter):
    source, sampler = painter(bands=["r"])
    sampler.network.light = lambda latent, condition: torch.ones(len(latent), 4, 128, 128)
    images, _, _ = drawn(source, asked(20.0, 0.8, 0.5))
    level = images / images[:, :, 63:65, 63:65].mean((2, 3), keepdim=True)
    radius = torch.hypot(torch.arange(128) - 63.5, (torch.arange(128) - 63.5)[:, None])
    assert level.shape[-1] == 128 and level[..., radius < 0.79 * 64].sub(1).abs().max() < 1e-5
    assert level[..., radius > 64].max() < 1e-6 and level[..., 0].max() < 5e-3
    assert images.sum((1, 2, 3)).numpy() == pytest.approx([10 ** (0.4 * 11.4)] * 3, rel=1e-5)


@pytest.mark.parametrize(
    ("wanted", "counted"),
    [
        ((26.0, 0.8, 0.5), [3, 0, 0]),
        ((20.0, 0.1, 0.5), [3, 0, 0]),
        ((15.0, 0.8, 0.5), [0, 3, 0]),
        ((20.0, 5.0, 0.5), [0, 3, 0]),
        ((20.0, 0.8, 1.5), [0, 0, 3]),
        ((20.0, 0.8, 0.0), [0, 0, 3]),
    ],
)
def test_what_is_drawn_otherwise_is_counted(painter, wanted, counted):
    source, _ = painter(bands=["r"])
    said = source.replaced(asked(*wanted))
    assert list(said.values())[:3] == counted
    assert [words.split()[0] for words in said] == ["fainter", "brighter", "of", "whose"]


def test_what_no_galaxy_has_together_is_counted(painter):
    source, sampler = painter(bands=["r"])
    values = sampler.population.values  # faint ones alone are large from here on
    values[:, 2] = torch.where(values[:, 0] > 20, 1.8, 0.5) + 0.05 * torch.rand(len(values))
    sampler.supported = [[sampler.population.supported_range(c, k) for k in range(4)] for c in range(2)]
    source, _ = painter(bands=["r"])
    assert list(source.replaced(asked(21.0, 0.52, 0.5)).values()) == [0, 0, 0, 3]
    assert list(source.replaced(asked(21.0, 1.83, 0.5)).values()) == [0, 0, 0, 0]


def test_what_is_brighter_and_larger_is_brightened_and_stretched(painter):
    source, sampler = painter(bands=["r"])
    high_r = sampler.supported[0][2][1]
    images, scale, _ = drawn(source, asked(15.0, 5.0, 0.5))
    assert scale.tolist() == pytest.approx([0.1 * 5 / high_r] * 3, rel=1e-6)
    assert images.sum((1, 2, 3)).numpy() == pytest.approx([10 ** (0.4 * 16.4)] * 3, rel=1e-5)
    counted = list(source.replaced(asked(15.0, 5.0, 0.5)).items())
    assert [n for _, n in counted[:3]] == [0, 3, 0] and counted[1][0].startswith("brighter or larger")


def test_a_galaxy_is_the_same_among_others_and_in_parts(painter, monkeypatch):
    source, _ = painter(bands=["g", "r"])
    rng = np.random.default_rng(1)
    many = Requests(
        rng.uniform(17, 27, 40),
        rng.uniform(0.05, 3, 40),
        rng.uniform(0, 2, 40),
        rng.choice(["disc", "early-type"], 40),
        rng.integers(0, 2**62, 40),
    )

    def each(wanted):
        found = {}
        for group in source.draw(wanted):
            for row, image, scale in zip(group.rows, group.images, group.pixel_scale, strict=True):
                found[int(row)] = image.numpy().tobytes(), float(scale)
        return [found[row] for row in range(len(wanted.seed))]

    together = each(many)
    monkeypatch.setattr(trained_light, "_TOGETHER", 7)
    assert each(many) == together
    chosen = np.array([31, 4, 17])
    assert each(many.of(chosen)) == [together[row] for row in chosen]
    assert len(set(together)) == 40


def test_galaxies_that_lie_in_one_direction_are_turned_by_their_seeds(painter):
    source, _ = painter(bands=["r"])
    images, scale, _ = drawn(source, asked(20.0, 0.8, 0.5, seeds=range(16)))
    angles = shapes_of(images[:, 0].double(), scale.double())["position_angle"].numpy()
    quarters = np.round(angles / 90) % 2
    assert sorted(quarters.tolist()) == [0.0] * 8 + [1.0] * 8
    alone = images[:8, 0] / images[:8, 0].sum((1, 2), keepdim=True)
    apart = (alone[:, None] - alone).abs().sum((2, 3)) + torch.eye(8)
    assert apart.min() > 0.01  # in eight ways, mirrored ones too


def test_of_other_classes_there_are_as_many_as_in_the_training_data(painter):
    source, sampler = painter(bands=["r"])
    assert source.parts == {"disc": 200, "early-type": 200}
    assert "classes are as often as in the training data" in source.notes()
    sampler.population = Population(torch.zeros(400, dtype=torch.int64), sampler.population.values)
    assert painter(bands=["r"])[0].parts == {"disc": 400}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    settings = {**GRIZ, "classes": ("spiral", "elliptical", "merger", "edge-on"), "generator": "frame"}
    return write_flux_checkpoint(tmp_path_factory.mktemp("flux") / "latest.pt", **settings)


def test_a_field_of_a_checkpoint_is_one_in_any_number_of_processes(tmp_path, checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(painting, "CELL_ARCSEC", 20.0)

    def elsewhere(function, tasks, processes, what):
        tasks = list(tasks)
        done = {place: pickle.loads(pickle.dumps(function))(task) for place, task in reversed([*enumerate(tasks)])}
        return iter([done[place] for place in range(len(tasks))])

    monkeypatch.setattr(making, "stream_on_processes", elsewhere)
    for name, processes in (("one", 1), ("two", 2)):
        words = f"{WORDS} --checkpoint {checkpoint} --device cpu --processes {processes} --out {tmp_path / name}"
        observe.main(words.split())
    words = f"{WORDS} --checkpoint {checkpoint} --device cpu --out {tmp_path / 'three'}"
    interrupted(monkeypatch, words=words)
    with pytest.raises(UserError, match=r"other settings \(another checkpoint\)"):
        observe.main(f"{WORDS} --out {tmp_path / 'three'}".split())
    observe.main(words.split())
    left, right, third = (tree_of(tmp_path / name) for name in ("one", "two", "three"))
    assert [name for name in left if left[name] != right[name]] == ["field.json"] and len(left) == 8
    assert [name for name in left if left[name] != third[name]] == ["field.json"]
    field = MockField(tmp_path / "one")
    truth = field.truth()
    galaxies = truth[truth["kind"] == b"galaxy"]
    assert (
        len(galaxies) > 3
        and galaxies["redshift"].max() <= 1
        and set(galaxies["morphology"]) <= {name.encode() for name in MOCK_PARTS}
    )
    light = np.array(field.noiseless("i"), np.float64).sum()
    assert light == pytest.approx((10 ** (0.4 * (31.4 - truth["magnitude_i"]))).sum(), rel=0.25)
    assert field.facts.source.startswith("run flux, step 7: generator frame behind a telescope")
    said = [remark for remark in field.facts.remarks if "fainter or smaller" in remark]
    assert len(said) == 1 and said[0] in capsys.readouterr().out


def test_hst_sees_a_field_in_binned_pixels_and_the_files_say_so(tmp_path, checkpoint, capsys):
    fits = pytest.importorskip("astropy.io.fits")
    words = "field --survey COSMOS --area 0.05 --faintest 23 --seed 3 --bin auto"
    observe.main(f"{words} --checkpoint {checkpoint} --device cpu --out {tmp_path / 'hst'}".split())
    sentence = "COSMOS pixels of 0.03 arcsec binned 4 x 4 to 0.12 arcsec: the galaxies' light has 0.1 arcsec pixels"
    assert sentence in capsys.readouterr().out
    facts = MockField(tmp_path / "hst").facts
    assert (facts.pixel_scale, facts.width_px, facts.binning, facts.binned) == (0.12, 112, 4, sentence)
    band = find_survey("COSMOS").bands[0]
    assert facts.bands[0].sky_noise == pytest.approx(4 * band.sky_noise(0.03))
    header = fits.getheader(tmp_path / "hst/f814w.fits")
    assert (header["BINAXIS1"], header["BINAXIS2"], header["PIXSCALE"]) == (4, 4, 0.12)
    assert header["CDELT2"] == pytest.approx(0.12 / 3600) and sentence in " ".join(header["COMMENT"])
    # Of the mock survey's galaxies light is as fine as a survey is: auto bins nothing.
    observe.main(f"{words} --out {tmp_path / 'own'}".split())
    facts = MockField(tmp_path / "own").facts
    assert (facts.pixel_scale, facts.binning, facts.binned) == (0.03, 1, "")
    assert "BINAXIS1" not in fits.getheader(tmp_path / "own/f814w.fits")
    # A field of before there was binning has none.
    manifest = tmp_path / "own/field.json"
    said = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({name: value for name, value in said.items() if not name.startswith("binn")}))
    assert MockField(tmp_path / "own").facts == facts


def test_a_checkpoint_that_changes_meanwhile_is_refused(tmp_path, checkpoint):
    path = tmp_path / "latest.pt"
    path.write_bytes(checkpoint.read_bytes())
    source = TrainedLight(path, find_survey("LSST", ["r"]), 0, "cpu")
    write_flux_checkpoint(path, **GRIZ)
    assert set(TrainedLight(path, find_survey("LSST", ["r"]), 0, "cpu").parts) == {"disc", "early-type"}
    with pytest.raises(UserError, match=r"latest.pt is not what it was when the field was begun"):
        source.describe()


@pytest.mark.parametrize(
    ("settings", "words", "said"),
    [
        (
            {},
            "--survey COSMOS --bands f814w",
            r"pixels of 0.03 arcseconds, finer than the 0.1 of the light .*--bin auto",
        ),
        ({}, "--survey COSMOS --bands f814w --bin 3", r"pixels of 0.09 arcseconds, .*: add up 2 x 2 of them"),
        ({}, "--survey LSST --bands y", "filter y sees .* choose filters of which at least three quarters lie there"),
        ({"wavelengths": ()}, "", "the wavelengths of the generator's bands are none nm"),
        ({"telescope": "off"}, "", "paints galaxies as its training images show them and not their light"),
        ({"classes": ("a" * 17, "a" * 18)}, "", "is not told from another by 16 letters"),
        ({}, "--galaxies mock", "--galaxies mock and --checkpoint each say what draws the galaxies"),
        ({}, "--solver-steps 5", "holds no diffusion model"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(tmp_path, settings, words, said):
    path = write_flux_checkpoint(tmp_path / "latest.pt", **{**GRIZ, **settings})
    with pytest.raises(UserError, match=said) as caught:
        observe.main([*WORDS.split(), "--checkpoint", str(path), *words.split(), "--out", str(tmp_path / "out")])
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"num_steps of a solver .* give its --checkpoint as well"):
        observe.main([*WORDS.split(), "--solver-steps", "5", "--out", str(tmp_path / "out")])


def test_the_magnitude_is_asked_for_in_the_nearest_band_that_the_generator_knows_it_of():
    names = ("magnitude_g", "color_g_r", "magnitude_i", "magnitude_z")
    config = SimpleNamespace(bands=("g", "r", "i", "z"), wavelengths=GRIZ["wavelengths"], attributes=names)
    sampler = SimpleNamespace(config=config)
    found = [trained_light._nearest_magnitude(sampler, nm) for nm in (400.0, 560.0, 700.0, 800.0, 900.0)]
    assert found == ["magnitude_g", "magnitude_g", "magnitude_i", "magnitude_i", "magnitude_z"]
    config.attributes = ("color_g_r",)
    assert trained_light._nearest_magnitude(sampler, 700.0) is None
