"""A generator of galaxies as they are, and the telescope that observes them: what stands between the two networks.

The picture that a telescope takes is known physics but for the galaxy in it. So the network paints the galaxy's light
alone, finer than the pixels of the data, and the telescope of a real galaxy observes it: point-spread function, pixels
and noise. The discriminator compares what was observed, and the network never sees noise or blur (AmbientGAN: Bora,
Price & Dimakis 2018).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from galaxies.images.stretch import NOISE_SOFTENING, AsinhStretch, inverse_sine
from galaxies.networks.galaxy_frame import Pose
from galaxies.networks.layers import ImageGenerator
from galaxies.networks.turning import turned_light, upright
from galaxies.telescope.exposure import Exposure
from galaxies.telescope.observing import Noise, observe
from galaxies.telescope.profiles import profile_of
from galaxies.telescope.psf import Psf, PsfImages

NUM_EXPOSURES = 64  # that are kept, to observe with where no real galaxy stands beside
_DARK = -4.0  # what a network paints of the sky, 0, gives next to no light: 0.02 softenings
_MOST = 40.0  # inverse hyperbolic sine beyond which no galaxy's light lies, and single precision ends
_FADING = 0.8  # of half a frame, from where on light fades to none at its border: a turned frame shows no corners
_SMOOTH = (0.25, 0.5, 0.25)  # along each axis: no light at the frequency of the fine pixels themselves


class ObservedGenerator(ImageGenerator):
    """Paint intrinsic light, turn it onto the sky, and observe it.

    Parameters
    ----------
    network : ImageGenerator
        Paints planes (N, B, k S, k S) of any values from noise (N, latent_dim >= 3) and condition. Position angles can
        be asked for if what it paints lies along x.
    latent_dim : int
    image_size : int
        S, pixels of the telescope a side.
    oversampling : int
        k, pixels of the light for one of the telescope's along each axis.
    softening : tuple of float, B of them
        Of the stretch, nJy a pixel of the telescope.
    profile : str
        Shape of point-spread functions of which the width alone is known, see `telescope.profiles.profile_of`.
    psf_pixels : int
        P, of the point-spread functions that are images, 0 for none.
    """

    softening: Tensor
    kernel: Tensor  # (3, 3), of sum 1
    window: Tensor  # (k S, k S), 1 within the galaxy's reach
    pixel_scale: Tensor  # (K,), of the kept exposures, as the next
    psf_fwhm: Tensor  # (K, B)
    noise: Tensor  # (K, B)
    psfs: Tensor  # (K, B, P, P)
    photons: Tensor  # (B,), nJy: variance that a nanojansky of light adds

    def __init__(
        self,
        network: ImageGenerator,
        latent_dim: int,
        image_size: int,
        oversampling: int,
        softening: tuple[float, ...],
        profile: str,
        psf_pixels: int = 0,
    ) -> None:
        super().__init__()
        num_bands = len(softening)
        self.turns = network.lies_along_x
        self.network, self.latent_dim, self.oversampling = network, latent_dim, oversampling
        self.white = (num_bands, image_size, image_size)
        self._parts = [latent_dim, math.prod(self.white), 1]
        self.noise_dim = sum(self._parts)  # the network's, the pixels', and the one that chooses an exposure
        self._profile = profile_of(profile)
        self.register_buffer("softening", torch.tensor(softening), persistent=False)
        self.register_buffer("window", _window(image_size * oversampling), persistent=False)
        taps = torch.tensor(_SMOOTH)
        self.register_buffer("kernel", taps[:, None] * taps, persistent=False)
        for name, shape in (
            ("pixel_scale", (NUM_EXPOSURES,)),
            ("psf_fwhm", (NUM_EXPOSURES, num_bands)),
            ("noise", (NUM_EXPOSURES, num_bands)),
            ("psfs", (NUM_EXPOSURES, num_bands, psf_pixels, psf_pixels)),
            ("photons", (num_bands,)),
        ):
            self.register_buffer(name, torch.zeros(shape))
        self.pixel_scale.fill_(1.0)
        if psf_pixels:
            self.psfs[..., psf_pixels // 2, psf_pixels // 2] = 1.0
        self.noise.copy_(self.softening / NOISE_SOFTENING)

    @torch.no_grad()
    def learn(self, exposures: Exposure, photons: Tensor) -> None:
        """Keep exposures of the training data, at most `NUM_EXPOSURES` (fewer are repeated), and photon noise (B,)."""
        rows = torch.arange(NUM_EXPOSURES, device=exposures.noise.device) % len(exposures.noise)
        kept = exposures.of(rows)
        self.pixel_scale.copy_(kept.pixel_scale)
        self.psf_fwhm.copy_(kept.psf_fwhm)
        self.noise.copy_(kept.noise)
        if kept.psfs is not None:
            self.psfs.copy_(kept.psfs)
        self.photons.copy_(photons)

    def light(self, latent: Tensor, condition: Tensor) -> Tensor:
        """Return light (N, B, k S, k S) of noise (N, latent_dim) and conditions: float32, nJy a fine pixel, never < 0.

        What the pose in the noise says is the last thing that is done to it, so that the same noise at another position
        angle gives the same galaxy, turned.
        """
        painted = self.network(upright(latent), condition)
        with torch.autocast(painted.device.type, enabled=False):
            brightness = F.softplus(inverse_sine(painted.float()) + _DARK).clamp_max(_MOST)
            # A softening is that of a pixel of the telescope, of which many of the light's make one.
            light = brightness.sinh() * (self.softening / self.oversampling**2)[:, None, None]
            return turned_light(_smoothed(light * self.window, self.kernel), Pose.from_noise(latent))

    def observed(self, light: Tensor, exposure: Exposure, white: Tensor | None) -> Tensor:
        """Return what a telescope sees of light (N, B, k S, k S), with noise of standard normal numbers, or without.

        Parameters
        ----------
        light : Tensor, (N, B, k S, k S)
            nJy a fine pixel.
        exposure : Exposure
        white : Tensor, (N, B, S, S), or None

        Returns
        -------
        Tensor, (N, B, S, S)
            nJy a pixel.
        """
        with torch.autocast(light.device.type, enabled=False):
            psf = Psf(exposure.psf_fwhm, self._profile) if exposure.psfs is None else PsfImages(exposure.psfs)
            noise = None if white is None else Noise(exposure.noise, self.photons)
            return observe(
                light,
                psf,
                exposure.pixel_scale,
                oversampling=self.oversampling,
                noise=noise,
                normal=None if white is None else white.float(),
            )

    def stretched(self, light: Tensor, exposure: Exposure, white: Tensor | None) -> Tensor:
        """Return what `observed` does, stretched for networks."""
        return AsinhStretch(self.softening)(self.observed(light, exposure, white))

    def kept_exposure(self, chosen: Tensor) -> Exposure:
        """Return an exposure of the training data for each of standard normal numbers (N,), all equally likely."""
        place = (torch.special.ndtr(chosen.float()) * NUM_EXPOSURES).long().clamp(0, NUM_EXPOSURES - 1)
        psfs = self.psfs if self.psfs.shape[-1] else None
        return Exposure(self.pixel_scale, self.psf_fwhm, self.noise, psfs).of(place)

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """Generate stretched images (N, B, S, S) as one of the training data's exposures shows them.

        Parameters
        ----------
        z : Tensor, (N, noise_dim)
            Standard normal: what the galaxy is, the noise of its pixels, and which exposure is taken.
        condition : Tensor, (N, condition_dim)
        """
        latent, white, chosen = z.split(self._parts, 1)
        light = self.light(latent, condition)
        return self.stretched(light, self.kept_exposure(chosen[:, 0]), white.unflatten(1, self.white))


def _window(side: int) -> Tensor:
    """Return a round window (side, side): 1, and from `_FADING` of half a frame a cosine down to 0 at the border."""
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    radius = torch.hypot(axis, axis[:, None])
    return 0.5 + 0.5 * torch.cos(math.pi * ((radius - _FADING) / (1 - _FADING)).clamp(0, 1))


def _smoothed(light: Tensor, kernel: Tensor) -> Tensor:
    """Spread each pixel's light over its neighbours: nothing is left of the pattern of the pixels themselves."""
    return F.conv2d(light, kernel.expand(light.shape[1], 1, 3, 3), padding=1, groups=light.shape[1])
