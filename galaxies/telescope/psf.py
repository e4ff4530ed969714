"""Point-spread functions: how a telescope, and the air above it, spread the light of a point.

Those of `Psf` are given by their transfer function, the Fourier transform of unit light about the centre, in closed
form of the frequency times the full width at half maximum (`profiles.py`). They hold optics and air; the detector's
pixels integrate after them. Those of `PsfImages` were measured and hold the pixels' response too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from galaxies.telescope.fourier import FourierGrid
from galaxies.telescope.profiles import Profile, profile_of
from galaxies.telescope.waves import Parts, to_waves


@dataclass(frozen=True)
class Psf:
    """Round point-spread functions, one an image and band.

    Attributes
    ----------
    fwhm : Tensor, (N, B) or (1, B), float32
        Full width at half maximum, arcseconds, above 0.
    profile : Profile
    """

    fwhm: Tensor
    profile: Profile

    @classmethod
    def named(cls, fwhm: Tensor, text: str, obscuration: float = 0.0) -> Psf:
        """Return point-spread functions of a shape by its name; see `profile_of`."""
        return cls(fwhm, profile_of(text, obscuration))

    def transfer(self, field: FourierGrid) -> Tensor:
        """Return the transfer functions on a grid, (N, B, W, K), float32."""
        return self.profile(field.radius_squared[:, None], self.fwhm[..., None, None])

    def applied(self, parts: Parts, frequencies: Tensor, light_scale: Tensor, ratio: Tensor | float) -> Parts:
        """Return the waves, as `to_waves` gives them, of light that the telescope has blurred.

        Parameters
        ----------
        parts : four of Tensor, (N, B, K, K)
        frequencies : Tensor, (K,)
            Cycles a pixel of the light.
        light_scale : Tensor, (N,) or (1,)
            Arcseconds a pixel of the light.
        ratio : Tensor, (N,) or (1,), or float
            The telescope's pixels over those of the light; of no use here.
        """
        squared = frequencies.square()
        plane = (squared[:, None] + squared) / light_scale.square()[:, None, None]
        transfer = self.profile(plane[:, None], self.fwhm[..., None, None])
        seen = [part * transfer for part in parts]
        # Of wings as wide as those of diffraction a hundredth of the light would come round. As good as level, it is
        # taken off the constant wave.
        periods = light_scale[:, None] / (frequencies[1] * self.fwhm)
        seen[0][..., 0, 0] -= self.profile.come_round(periods) * parts[0][..., 0, 0]
        return seen

    def highest(self, ratio: float) -> float:
        """Return the frequency, cycles a pixel of the light, from which nothing passes: the highest that it has."""
        return 0.5

    def image(self, side: int, pixel_scale: float) -> Tensor:
        """Return pictures of unit light, (N, B, side, side), on pixels of `pixel_scale` arcseconds that integrate.

        The centre is that of the middle pixel, or of the middle four if `side` is even. Light outside the picture is
        left out, and the rest is scaled to 1.
        """
        field = FourierGrid(
            4 * side, torch.full((1,), pixel_scale, device=self.fwhm.device)
        )  # for the wings come round
        first = 3 * side // 2
        centre = (first + (side - 1) / 2) * field.pixel_scale
        picture = field.image(self.transfer(field) * (field.square() * field.shift(centre, centre))[:, None])
        picture = picture[..., first : first + side, first : first + side]
        return picture / picture.sum((-1, -2), keepdim=True)


@dataclass(frozen=True)
class PsfImages:
    """Point-spread functions as pictures, such as surveys measure them: the pixels' response is in them already.

    What a picture does not tell of, frequencies that its own pixels are too coarse for, does not pass.

    Attributes
    ----------
    images : Tensor, (N, B, P, P) or (1, B, P, P), float32
        Each sums to 1. The centre is that of the picture.
    oversampling : int
        Pixels of the pictures for one of the telescope's along each axis. With 1 they are the telescope's own, whose
        response is in them; with more, that of the finer pixels is.
    """

    images: Tensor
    oversampling: int = 1

    def applied(self, parts: Parts, frequencies: Tensor, light_scale: Tensor, ratio: Tensor | float) -> Parts:
        """Return the waves of light that the telescope has blurred; see `Psf.applied`."""
        pixel = ratio / self.oversampling
        size = pixel[:, None, None] if isinstance(pixel, Tensor) else pixel
        # The pixels of light have gathered it, and those of the telescope are to do so later on: once is enough.
        once = (frequencies * size < 0.5).to(frequencies.dtype) / torch.sinc(frequencies * size).clamp_min(0.5)
        once = once.unsqueeze(-1) * once.unsqueeze(-2)
        cc, cs, sc, ss = (part * once for part in to_waves(self.images, frequencies, pixel))
        light_cc, light_cs, light_sc, light_ss = parts
        return [  # cos(a + b) and sin(a + b), on both axes
            cc * light_cc - cs * light_cs - sc * light_sc + ss * light_ss,
            cs * light_cc + cc * light_cs - ss * light_sc - sc * light_ss,
            sc * light_cc - ss * light_cs + cc * light_sc - cs * light_ss,
            ss * light_cc + sc * light_cs + cs * light_sc + cc * light_ss,
        ]

    def highest(self, ratio: float) -> float:
        """Return the frequency, cycles a pixel of the light, from which nothing passes."""
        return min(0.5, 0.5 * self.oversampling / ratio)
