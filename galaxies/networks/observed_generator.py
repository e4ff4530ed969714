"""A generator of galaxies as they are, and the telescope that observes them: what stands between the two networks.

The discriminator compares what was observed, and the network never sees noise or blur (AmbientGAN: Bora, Price &
Dimakis 2018); see `light_telescope`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from galaxies.networks.galaxy_frame import Pose
from galaxies.networks.layers import ImageGenerator
from galaxies.networks.light_telescope import LightTelescope
from galaxies.networks.turning import along_major_axis, turned_light, upright


class ObservedGenerator(LightTelescope, ImageGenerator):
    """Paint intrinsic light, turn it onto the sky, and observe it.

    Parameters
    ----------
    network : ImageGenerator
        Paints planes (N, B, k S, k S) of any values from noise (N, latent_dim >= 3) and condition. Position angles can
        be asked for if what it paints lies along x.
    latent_dim : int
    image_size, oversampling, softening, profile, psf_pixels
        As of `LightTelescope`.
    """

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
        super().__init__(image_size, oversampling, softening, profile, psf_pixels)
        self.turns = network.lies_along_x
        self.network, self.latent_dim = network, latent_dim
        self._parts = [latent_dim, math.prod(self.white), 1]
        self.noise_dim = sum(self._parts)  # the network's, the pixels', and the one that chooses an exposure

    def light(self, latent: Tensor, condition: Tensor) -> Tensor:
        """Return light (N, B, k S, k S) of noise (N, latent_dim) and conditions: float32, nJy a fine pixel, never < 0.

        What the pose in the noise says is the last thing that is done to it, so that the same noise at another position
        angle gives the same galaxy, turned.
        """
        light = self.light_of(self.network(upright(latent), condition))
        with torch.autocast(light.device.type, enabled=False):
            return turned_light(light, along_major_axis(light, Pose.from_noise(latent)))

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
