"""Pictures of flux: as astropy makes them, with the right bands as red, green and blue, bright enough and not too."""

import warnings

import numpy as np
import pytest
import torch

from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.images.composites import LuptonComposite, pictures_of_run


def discs(num_bands=3, side=48, seed=0):
    """Return two exponential discs (2, B, S, S) in noise of standard deviation 1, up to 3000 times as bright."""
    rng = np.random.default_rng(seed)
    axis = np.arange(side) - side / 2
    radius = np.hypot(*np.meshgrid(axis, axis))
    colors = rng.uniform(0.3, 1.5, (2, num_bands, 1, 1))
    peaks = np.array([3000.0, 40.0])[:, None, None, None]
    flux = peaks * colors * np.exp(-radius / 5) + rng.normal(0, 1, (2, num_bands, side, side))
    return torch.from_numpy(flux.astype(np.float32))


@pytest.mark.parametrize("q", [8.0, 3.0])
@pytest.mark.parametrize("stretch", [None, 5.0, 80.0])
def test_pictures_are_those_of_astropy(stretch, q):
    visualization = pytest.importorskip("astropy.visualization")
    images, noise = discs(), [1.0, 2.0, 0.5]
    lupton = LuptonComposite(("red", "green", "blue"), noise, stretch=stretch, q=q)
    pictures = lupton(images).permute(0, 2, 3, 1).numpy()
    for image, picture in zip(images.numpy(), pictures, strict=True):
        planes = [image[k] * lupton.weights[k] for k in range(3)]
        wanted = visualization.make_lupton_rgb(*planes, minimum=lupton.minimum, stretch=lupton.stretch, Q=q)
        # astropy cuts fractions off, and here they are rounded.
        assert np.abs(picture.astype(int) - wanted.astype(int)).max() <= 1


def test_colors_do_not_depend_on_brightness():
    flux = torch.tensor([4.0, 2.0, 1.0])[:, None] * torch.logspace(1, 5, 30)
    lupton = LuptonComposite(("red", "green", "blue"), [1e-3] * 3, stretch=100.0)
    pixels = lupton(flux.view(1, 3, 5, 6))[0].flatten(1).double()
    weights = torch.tensor(lupton.weights).double()
    bright = pixels[0] > 60
    assert bright.sum() > 10 and pixels.max() == 255
    for k in (1, 2):
        ratio = pixels[k, bright] / pixels[0, bright]
        wanted = 0.5**k * weights[k] / weights[0]
        assert torch.allclose(ratio, wanted.expand_as(ratio), atol=0.02)


@pytest.mark.parametrize(
    ("bands", "chosen", "planes"),
    [
        ("g r z", "", (2, 1, 0)),
        ("z r g", "", (0, 1, 2)),
        ("g r i z", "", (2, 1, 0)),
        ("u g r i Z Y J H Ks", "", (3, 2, 1)),
        ("u g r i Z Y J H Ks", "Ks J g", (8, 6, 1)),
        ("F444W F115W F277W", "", (0, 2, 1)),
        ("one two three four five", "", (4, 2, 0)),
        ("g one z", "", (2, 1, 0)),
        ("F814W", "", (0, 0, 0)),
        ("g r z", "r", (1, 1, 1)),
    ],
)
def test_bands_are_ordered_by_wavelength(bands, chosen, planes):
    lupton = LuptonComposite(bands.split(), [1.0] * len(bands.split()), chosen.split())
    assert lupton.planes == tuple((k,) for k in planes)


def test_green_of_two_bands_is_their_mean():
    lupton = LuptonComposite(("g", "r"), [1.0, 1.0])
    assert lupton.planes == ((1,), (1, 0), (0,))
    red, green, blue = lupton(discs(2))[1, :, 20:28, 20:28].int().unbind()
    assert (green - (red + blue) / 2).abs().max() <= 1 and (red - blue).abs().float().mean() > 10


def test_one_band_is_grey_and_grows_with_the_light():
    flux = torch.linspace(0, 2000, 400).view(1, 1, 20, 20)
    red, green, blue = LuptonComposite(("F814W",), [1.0])(flux)[0]
    assert torch.equal(red, green) and torch.equal(red, blue)
    levels = red.flatten().int()
    assert (levels.diff() >= 0).all() and levels[-1] > 200


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e6])
def test_brightness_goes_by_the_noise(unit):
    images = discs() * unit
    pictures = LuptonComposite(("g", "r", "i"), [unit] * 3)(images).float()
    assert (pictures - LuptonComposite(("g", "r", "i"), [1.0] * 3)(discs()).float()).abs().max() <= 1
    sky = pictures[1, :, :8, :8]
    assert 5 < sky.mean() < 30 and (sky > 0).float().mean() > 0.7  # dark, and not cut off
    assert pictures[1].max() > 100  # forty times the noise is well to be seen


def test_an_infrared_band_does_not_make_every_galaxy_red():
    """A galaxy has a color g - Ks of about 2.5 mag."""
    light = torch.tensor([1.0, 4.0, 10.0])[:, None, None].expand(3, 8, 8) * 100
    red, green, blue = LuptonComposite(("g", "i", "Ks"), [1.0] * 3)(light[None]).float().mean((0, 2, 3))
    assert max(red, green, blue) / min(red, green, blue) < 2.2


def test_pixels_without_a_value_are_black():
    images = discs()
    images[0, 1, 3, 4], images[1, 0, 5, 5], images[1, 2, 6, 6] = torch.nan, torch.inf, -torch.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures = LuptonComposite(("g", "r", "i"), [1.0] * 3)(images)
    assert (pictures[0, :, 3, 4] == 0).all() and (pictures[1, :, 6, 6] == 0).all()
    assert (LuptonComposite(("g",), [0.0])(torch.zeros(1, 1, 4, 4)) <= 255).all()  # no noise and no light


def test_what_cannot_be_chosen_is_refused():
    for chosen, words in (("g r q", "there is no band 'q': choose from g, r, i"), ("g r", "three bands.*not g, r")):
        with pytest.raises(UserError, match=words):
            LuptonComposite(("g", "r", "i"), [1.0] * 3, chosen.split())


def test_pictures_of_runs():
    flux = {"kind": "flux", "bands": ("g", "r", "i"), "classes": ("galaxy",), "pixel_scale": 0.2}
    config = Config(attributes=("magnitude_r",), softening=(2.0, 2.0, 2.0), psf_fwhm=(0.0, 0.0, 0.0), **flux)
    images = discs()
    upright = LuptonComposite(("g", "r", "i"), [1.0] * 3)(images.flip(-2))  # FITS viewers have the first row below
    assert torch.equal(pictures_of_run(config)(images), upright)
    assert torch.equal(pictures_of_run(config, ("r",))(images)[:, 0], pictures_of_run(config, ("r",))(images)[:, 2])
    display = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert pictures_of_run(Config())(display) is display
    with pytest.raises(UserError, match="leave out --rgb"):
        pictures_of_run(Config(), ("r", "g", "b"))
