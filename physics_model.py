"""The two parts of the physics loss: a predictor that reads attributes off an image, and photometry itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config_physics import BANDS, Attribute, Config
from galaxies.images.stretch import LIMITS, NOISE_SOFTENING, AsinhStretch
from galaxies.measure import photometry
from galaxies.measure.flux import FluxPhotometry, measure_flux
from galaxies.measure.flux_model import psf_width, width_by_wings
from galaxies.networks.layers import BASE_SIDE, PaddedConv2d
from galaxies.telescope.exposure import Exposure
from galaxies.telescope.profiles import profile_of

# What a number of values is divided by, given this rank's number: their mean over all ranks of a run. With it the mean
# of the ranks' losses is the loss of the whole batch.
ShareCount = Callable[[Tensor], Tensor]


def _own(count: Tensor) -> Tensor:
    return count


_LOG_VARIANCE = (-12.0, 2.0)  # bounds: a thousandth of the slider's range, and far more than all of it


class PhysicsPredictor(nn.Module):
    """Predict the physical attributes of galaxy images.

    Three strided convolutions with BatchNorm and ReLU, global average pooling and two fully connected layers
    with dropout: 64-128-256 channels at the default width.

    Parameters
    ----------
    num_attributes : int
        Length of the prediction.
    width : int
        Channels of the first layer.
    dropout : float
        Rate in the hidden layer, in training mode only.
    uncertainty : bool
        Also estimate the variance of the prediction's error, by two more layers on the same features. They send no
        gradient back into the features, so that the prediction itself is the same without them.
    num_bands : int
        Planes B of an image.
    reduction : int
        How many times smaller images are made, by the means of squares of pixels, before it looks at them.
    """

    prior_variance: Tensor

    def __init__(
        self,
        num_attributes: int,
        width: int = 64,
        dropout: float = 0.3,
        uncertainty: bool = False,
        num_bands: int = len(BANDS),
        reduction: int = 1,
    ) -> None:
        super().__init__()
        self.reduction = reduction
        layers: list[nn.Module] = []
        for c_in, c_out in ((num_bands, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [
                PaddedConv2d(c_in, c_out, 3, stride=2, padding=1),
                nn.BatchNorm2d(c_out),
                nn.ReLU(inplace=True),
            ]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.regress = nn.Sequential(
            nn.Linear(4 * width, 4 * width),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4 * width, num_attributes),
        )
        self.doubt = None
        if uncertainty:
            # In the order of the layers, in which the weights of a seed are drawn.
            first, last = nn.Linear(4 * width, width), nn.Linear(width, num_attributes)
            self.doubt = nn.Sequential(first, nn.ReLU(inplace=True), last)
            nn.init.constant_(last.bias, -4.0)  # an error of 0.14, the size of those in early training
        # Variance of each scaled attribute over the training galaxies: what knowing nothing amounts to.
        self.register_buffer("prior_variance", torch.ones(num_attributes))

    def forward(self, images: Tensor) -> Tensor:
        """Return attributes (N, A), scaled as in the condition vector, of images (N, B, S, S)."""
        return self.regress(self.features(self._reduced(images)))

    def distribution(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the attributes as `forward` and the logarithm of their variance (N, A), None without `uncertainty`."""
        features = self.features(self._reduced(images))
        if self.doubt is None:
            return self.regress(features), None
        return self.regress(features), self.doubt(features.detach()).float().clamp(*_LOG_VARIANCE)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the rectified maps of each convolution, of images as in `forward`."""
        found, images = [], self._reduced(images)
        for layer in self.features[:-2]:
            images = layer(images)
            if isinstance(layer, nn.ReLU):
                found.append(images)
        return found

    def _reduced(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, self.reduction) if self.reduction > 1 else images

    def reliability(self, log_variance: Tensor | None) -> Tensor | None:
        """Return the part (N, A), 0 to 1, of each attribute's variance that the picture tells; without a gradient.

        An attribute that a picture cannot tell, such as the redshift of a featureless galaxy, gets about 0.
        """
        if log_variance is None:
            return None
        return (1 - log_variance.detach().exp() / self.prior_variance.clamp_min(1e-8)).clamp(0, 1)


def variance_loss(
    predicted: Tensor, log_variance: Tensor, requested: Tensor, known: Tensor, share_count: ShareCount = _own
) -> Tensor:
    """Return the mean negative log-likelihood of the errors under a Gaussian, up to a constant.

    The errors are held constant: the prediction learns by its squared error alone, as without a variance, and only
    the variance learns here (Seitzer et al. 2022, arXiv:2203.09168, with beta = 1). All arguments are (N, A).
    """
    squared = (predicted.detach().float() - requested).square()
    terms = (squared * torch.exp(-log_variance) + log_variance) * known
    return 0.5 * terms.sum() / share_count(known.sum()).clamp_min(1e-6)


def physics_loss(
    predicted: Tensor,
    requested: Tensor,
    known: Tensor,
    reliability: Tensor | None = None,
    share_count: ShareCount = _own,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compare attributes, leaving out those that are unknown.

    Parameters
    ----------
    predicted, requested : Tensor, (N, A)
        Attributes scaled as in the condition vector.
    known : Tensor, (N, A)
        1 where the requested value is known, 0 where it is missing, between for one that counts less.
    reliability : Tensor, (N, A), optional
        How much each squared error counts in the loss, 0 to 1; all fully if left out.
    share_count : callable
        See `ShareCount`.

    Returns
    -------
    loss : Tensor, ()
        Mean squared error over all known values; the plain MSE where everything is known.
    squared_errors : Tensor, (A,)
        Sum of squared errors of each attribute, detached.
    counts : Tensor, (A,)
        Number of known values of each attribute.
    """
    squared = (predicted.float() - requested).square() * known
    counts = known.sum(0)
    counted = squared if reliability is None else squared * reliability
    loss = counted.sum() / share_count(counts.sum()).clamp_min(1e-6)
    return loss, squared.detach().sum(0), counts


@dataclass(frozen=True)
class FluxScale:
    """How stretched images of a run become flux, and what is known of all of them when that is measured.

    Attributes
    ----------
    stretch : AsinhStretch
    bands : tuple of str, B of them
    pixel_scale : Tensor, (1,) or (N,)
        Arcseconds a pixel; on the device, so that a step can be recorded.
    noise : Tensor, (1, B) or (N, B)
        Standard deviation of a pixel of the sky, nJy.
    psf_fwhm : Tensor, (1, B) or (N, B)
        Full width of the PSF as photometry takes it, its wings counted where its shape is known; arcseconds, NaN where
        unknown.
    wider : float
        This width over the one at half maximum that an exposure tells.
    """

    stretch: AsinhStretch
    bands: tuple[str, ...]
    pixel_scale: Tensor
    noise: Tensor
    psf_fwhm: Tensor
    wider: float = 1.0

    @classmethod
    def of(cls, config: Config, device: torch.device) -> FluxScale | None:
        """Return that of a run; None of display pictures."""
        if config.kind != "flux":
            return None
        softening = torch.tensor(config.softening, dtype=torch.float32, device=device)
        # Only a telescope that was told, as photons show, has a PSF of a known shape. Widths of others are as given.
        told = bool(config.photons) and not config.psf_pixels
        wider = width_by_wings(profile_of(config.psf_profile)) if told else 1.0
        known = [[wider * width or math.nan for width in config.psf_fwhm]]
        psf_fwhm = torch.tensor(known, dtype=torch.float32, device=device)
        noise = softening[None] / NOISE_SOFTENING
        pixel_scale = torch.tensor([config.pixel_scale], dtype=torch.float32, device=device)
        return cls(AsinhStretch(softening), config.bands, pixel_scale, noise, psf_fwhm, wider)

    def of_exposure(self, exposure: Exposure) -> FluxScale:
        """Return the scale of images that were observed so, each in its own way."""
        if exposure.psfs is None:
            width = self.wider * exposure.psf_fwhm.masked_fill(exposure.psf_fwhm <= 0, math.nan)
        else:
            width = psf_width(exposure.psfs) * exposure.pixel_scale[:, None]
        return replace(self, pixel_scale=exposure.pixel_scale, noise=exposure.noise, psf_fwhm=width)

    def measure(self, flux: Tensor) -> FluxPhotometry:
        """Measure images (N, B, S, S), nJy a pixel."""
        shape = len(flux), len(self.bands)
        noise, psf_fwhm = self.noise.expand(shape), self.psf_fwhm.expand(shape)
        return measure_flux(flux, self.pixel_scale, noise=noise, psf_fwhm=psf_fwhm)


# Attributes of flux that the predictor alone reads: what a telescope sees tells no distance, and how clumpy light is
# depends on which pixels are the galaxy's more than on their values.
_WITHOUT_SLOPE = ("size_kpc", "asymmetry", "gini", "m20")


def is_measured(attribute: Attribute) -> bool:
    """Tell whether the photometry of the loss measures an attribute."""
    return attribute.source in ("photometry", "flux") and attribute.name not in _WITHOUT_SLOPE


def photometric_residuals(
    images: Tensor,
    requested: Tensor,
    known: Tensor,
    attributes: tuple[Attribute, ...],
    scale: FluxScale | None = None,
) -> tuple[Tensor, Tensor]:
    """Measure images and subtract what was requested: no network that could be fooled.

    Parameters
    ----------
    images : Tensor, (N, B, S, S)
        As networks see them: display pictures in [-1, 1], or stretched flux.
    requested, known : Tensor, (N, A)
        As in `physics_loss`.
    attributes : tuple of Attribute, A of them
    scale : FluxScale, optional
        Of flux.

    Returns
    -------
    residuals : Tensor, (N, A)
        In the units of the condition vector, which are ranges of the data: all attributes count alike.
    compared : Tensor, (N, A)
        `known` where photometry measures the attribute and found a galaxy, else 0.
    """
    read = _read_display(images) if scale is None else _read_flux(images, scale)
    residuals, compared = [], []
    for column, attribute in enumerate(attributes):
        if not is_measured(attribute):
            residuals.append(torch.zeros_like(requested[:, column]))
            compared.append(torch.zeros_like(requested[:, column]))
            continue
        value, found = read(attribute.name)
        residuals.append(attribute.to_unit(value) - requested[:, column])
        compared.append(found.float() * known[:, column])
    return torch.stack(residuals, 1), torch.stack(compared, 1)


# From the name of an attribute to values (N,) and whether there is anything to compare (N,), bool.
_Read = Callable[[str], tuple[Tensor, Tensor]]


def _read_display(images: Tensor) -> _Read:
    measured = photometry.measure((images.float() + 1) / 2)
    found = measured.flag & photometry.NO_SOURCE == 0
    return lambda name: (measured.attribute(name), found)


def _read_flux(images: Tensor, scale: FluxScale) -> _Read:
    measured = scale.measure(scale.stretch.flux(images.float().clamp(*LIMITS)))  # a network may draw anything
    return lambda name: (
        measured.attribute(name, scale.bands),
        measured.known(name, scale.bands, significance=_LEAST_SIGNIFICANCE),
    )


# Standard deviations above which a flux is compared: where data would call it a limit it still has a slope, by which a
# galaxy that is too faint in a band becomes brighter.
_LEAST_SIGNIFICANCE = 0.5


def photometric_errors(
    images: Tensor,
    requested: Tensor,
    known: Tensor,
    attributes: tuple[Attribute, ...],
    scale: FluxScale | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the squared error (N, A) of each attribute by photometry, and how much it counts (N, A).

    Attributes that photometry does not measure, and images on which it finds no galaxy, count nowhere. The error is
    twice Huber's, since a measurement that locks on a neighbour can be far off: the squared error where that is small.
    Parameters as for `photometric_residuals`; the error is 0 where nothing was compared.
    """
    residuals, compared = photometric_residuals(images, requested, known, attributes, scale)
    huber = F.huber_loss(residuals, torch.zeros_like(residuals), reduction="none", delta=0.2)
    return 2 * huber * compared, compared


def photometric_loss(
    images: Tensor,
    requested: Tensor,
    known: Tensor,
    attributes: tuple[Attribute, ...],
    share_count: ShareCount = _own,
    scale: FluxScale | None = None,
) -> Tensor:
    """Return the mean of `photometric_errors` over the values compared, 0 where there are none.

    Parameters
    ----------
    images, requested, known, attributes, scale
        As for `photometric_errors`.
    share_count : callable
        See `ShareCount`.

    Returns
    -------
    Tensor, ()
    """
    errors, compared = photometric_errors(images, requested, known, attributes, scale)
    return errors.sum() / share_count(compared.sum()).clamp_min(1e-6)


def build_predictor(config: Config) -> PhysicsPredictor:
    """Return a new predictor of the settings' shape, on the CPU."""
    reduction = config.image_size // BASE_SIDE if config.detail_stages else 1
    return PhysicsPredictor(
        len(config.attributes), config.width, config.dropout, config.uncertainty, config.num_bands, reduction
    )
