"""The conditional diffusion model: a Gaussian process, and the generators that learn to undo it."""

from __future__ import annotations

import math
from bisect import bisect

import torch
from torch import Tensor, nn

from config_physics import BANDS, Config
from galaxies.images.stretch import FULL, NOISE_SOFTENING
from galaxies.images.stretch import LIMITS as FLUX_LIMITS
from galaxies.networks.layers import ImageGenerator
from galaxies.networks.light_telescope import NUM_EXPOSURES, LightTelescope
from galaxies.networks.unet import ContextUnet, Interpolation, enlarged
from galaxies.telescope.exposure import Exposure

_LOW_NOISE = (0.02, 0.3)  # of the signal: survey images of unit variance have a grain of about 0.1
_DUSK = -0.5  # what a new network paints of noise: a tenth of a softening of light, from which it can grow and fade
_FAINTEST = 0.1  # part of the signal from which a picture is sketched
_DEEP = NUM_EXPOSURES // 8  # exposures that are deeper than the one in which light is drawn
_GRAIN = 2 / math.asinh(FULL) / NOISE_SOFTENING  # of the sky, in stretched pictures
_LEAST_SPREAD = 0.02  # of the logarithms of widths and noise that a network is told


def linear_schedule(num_steps: int) -> Tensor:
    """Return the cumulative products of Ho et al. (2020), arXiv:2006.11239: beta from 1e-4 to 0.02.

    The range is meant for 1000 steps. With 100 the last product is 0.364: three fifths of the amplitude survive, and
    sampling starts from what the network has never seen.

    Returns
    -------
    Tensor, (num_steps + 1,), float64
        alpha bar at t = 0 (which is 1) to num_steps.
    """
    betas = torch.linspace(1e-4, 0.02, num_steps, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])


def cosine_schedule(num_steps: int, shift: float = 1.0) -> Tensor:
    """Return the cosine schedule (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17), ending without any signal.

    Its square root is moved and stretched so that the last value is exactly 0 (Lin et al. 2024, arXiv:2305.08891,
    algorithm 1), whatever the number of steps. Then the noise is made `shift` times as strong against the signal
    (Hoogeboom et al. 2023, arXiv:2301.11093, eq. 4): what is smooth over many pixels shows through much noise, and is
    decided where the plain schedule has hardly a step. As for `linear_schedule` otherwise.
    """
    t = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    amplitude = torch.cos((t + 0.008) / 1.008 * math.pi / 2)
    plain = ((amplitude - amplitude[-1]) / (amplitude[0] - amplitude[-1])).square()
    return plain / (plain + shift**2 * (1 - plain))


class GaussianDiffusion(nn.Module):
    """The process q(x_t | x_0) = N(sqrt(alpha bar_t) x_0, 1 - alpha bar_t), and what a network's output says about it.

    Parameters
    ----------
    schedule : {"cosine", "linear"}
    num_steps : int
        T; t runs from 1 (hardly any noise) to T.
    prediction : {"v", "noise"}
        What the network gives: the noise (Ho et al. 2020), or v = sqrt(alpha bar) noise - sqrt(1 - alpha bar) x_0,
        which stays meaningful where no signal is left (Salimans & Ho 2022, arXiv:2202.00512).
    shift : float
        Of the cosine schedule.
    """

    alphas_cumprod: Tensor
    signal: Tensor
    sigma: Tensor
    _between: Tensor

    def __init__(self, schedule: str, num_steps: int, prediction: str, shift: float = 1.0) -> None:
        super().__init__()
        self.num_steps, self.prediction = num_steps, prediction
        alphas_cumprod = cosine_schedule(num_steps, shift) if schedule == "cosine" else linear_schedule(num_steps)
        self.alpha_bars = alphas_cumprod.tolist()  # for solvers, which need not ask the device for them
        self.register_buffer("alphas_cumprod", alphas_cumprod.float(), persistent=False)
        self.register_buffer("signal", alphas_cumprod.sqrt().float(), persistent=False)
        self.register_buffer("sigma", (1 - alphas_cumprod).sqrt().float(), persistent=False)
        ratios = ((1 - alphas_cumprod) / alphas_cumprod).sqrt()
        self.noise_ratios = ratios.tolist()  # noise to signal; infinite where nothing is left
        between = (ratios[2:] * ratios[1:-1]).sqrt()  # geometric means of neighbours from t = 1 to T
        self._limits = between.tolist()
        self.register_buffer("_between", between.float(), persistent=False)

    def time_of(self, noise_ratio: float) -> int:
        """Return the step, of 1 to T, whose noise is nearest to that many times the signal."""
        return 1 + bisect(self._limits, noise_ratio)

    def draw_times(self, level: Tensor, low_noise_share: float = 0.0) -> Tensor:
        """Turn numbers (N,) in [0, 1) into the steps (N,) to learn from.

        Of all numbers, the lowest `low_noise_share` go to noise of 0.02 to 0.3 of the signal, even in its logarithm:
        there the grain of the sky is decided, and the schedule has hardly a step. The others go to all steps alike.
        """
        even = (level - low_noise_share) / (1 - low_noise_share) if low_noise_share < 1 else level
        t = 1 + (even * self.num_steps).long().clamp(0, self.num_steps - 1)
        if low_noise_share == 0:
            return t
        least, most = _LOW_NOISE
        ratio = least * (most / least) ** (level / low_noise_share)
        nearest = 1 + torch.searchsorted(self._between, ratio)
        return torch.where(level < low_noise_share, nearest, t)

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return x_t of x_0 and noise (N, C, S, S) at steps t (N,)."""
        return _spread(self.signal[t]) * x0 + _spread(self.sigma[t]) * noise

    def target(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return what the network should give."""
        if self.prediction == "noise":
            return noise
        return _spread(self.signal[t]) * noise - _spread(self.sigma[t]) * x0

    def predict_x0(self, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        """Return the x_0 that the network's output amounts to."""
        if self.prediction == "noise":
            return (x_t - _spread(self.sigma[t]) * output) / _spread(self.signal[t])
        return _spread(self.signal[t]) * x_t - _spread(self.sigma[t]) * output

    def predict_noise(self, x_t: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        """Return the noise with which x_0 has become x_t; t must not be 0."""
        return (x_t - _spread(self.signal[t]) * x0) / _spread(self.sigma[t])

    def output_for(self, x_t: Tensor, t: Tensor, x0: Tensor) -> Tensor:
        """Return the output that amounts to x_0: undo `predict_x0`; t must not be 0."""
        return self.target(x0, t, self.predict_noise(x_t, t, x0))

    def loss_weight(self, t: Tensor, gamma: float) -> Tensor:
        """Return the weight (N,) of the squared error of the output at steps t (N,).

        As in Min-SNR (Hang et al. 2023, arXiv:2303.09556) the error of x_0 counts at most `gamma`, so that steps with
        little noise, where it is easily small, do not take over. Below that cap it counts SNR for noise as the output
        (their eq. 5), and SNR + 1 for the velocity (Salimans & Ho 2022, section 4): with SNR alone the steps where no
        signal is left, with which drawing begins, would never be learned. 1 if gamma is 0.
        """
        if gamma == 0:
            return torch.ones_like(self.signal[t])
        signal, noise = self.alphas_cumprod[t], 1 - self.alphas_cumprod[t]
        capped = gamma * noise if self.prediction == "v" else gamma * noise / signal.clamp_min(1e-8)
        return capped.clamp_max(1)


def _spread(values: Tensor) -> Tensor:
    """Shape (N,) to (N, 1, 1, 1)."""
    return values[:, None, None, None]


def denoising_loss(output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean squared error of outputs (N, C, S, S), weights (N,)."""
    return (weight * (output.float() - target).square().mean((1, 2, 3))).mean()


class DiffusionGenerator(ImageGenerator):
    """A U-Net with its process and the scale of its images; draws galaxies as a GAN's generator does.

    Inside, images have zero mean and unit variance over the training set, for which the schedules are made.

    Parameters
    ----------
    unet : ContextUnet
    process : GaussianDiffusion
    image_size : int
    num_bands : int
        Planes B of an image.
    limits : tuple of float
        Least and largest value of a pixel.

    Attributes
    ----------
    shape : tuple of int
        Of one image, and of the noise that it is drawn from: (B, S, S), `noise_dim` values.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        unet: ContextUnet,
        process: GaussianDiffusion,
        image_size: int,
        num_bands: int = len(BANDS),
        limits: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        super().__init__()
        self.unet, self.process, self.limits = unet, process, limits
        self.shape = (num_bands, image_size, image_size)
        self.noise_dim = math.prod(self.shape)
        self.register_buffer("mean", torch.zeros(num_bands, 1, 1))
        self.register_buffer("deviation", torch.ones(1, 1, 1))

    def normalise(self, images: Tensor) -> Tensor:
        """Turn images (N, B, S, S) into what is diffused."""
        return (images - self.mean) / self.deviation

    def to_images(self, x0: Tensor) -> Tensor:
        """Undo `normalise`."""
        return x0 * self.deviation + self.mean

    def output(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Return what the U-Net says about x_t (N, B, S, S) at steps t (N,), int64, float32."""
        return self.unet(x_t, t / self.process.num_steps, condition).float()

    def predict_x0(self, x_t: Tensor, t: Tensor, condition: Tensor, guidance: float = 1.0) -> Tensor:
        """Return the image that x_t comes from, as far as can be told, within the range that pixels have."""
        return self.clip(self.process.predict_x0(x_t, t, self._guided(x_t, t, condition, guidance)))

    def _guided(self, x_t: Tensor, t: Tensor, condition: Tensor, guidance: float) -> Tensor:
        output = self.output(x_t, t, condition)
        if guidance == 1:
            return output
        nothing = self.output(x_t, t, torch.zeros_like(condition))
        return nothing + guidance * (output - nothing)

    def clip(self, x0: Tensor) -> Tensor:
        """Limit x_0 to what pixels can be."""
        return self.normalise(self.to_images(x0).clamp(*self.limits))


class ObservedDenoiser(DiffusionGenerator):
    """A diffusion model of a telescope's pictures whose network paints the light behind them.

    What is diffused are pictures x_0 as the data are: light f seen by a telescope A, and noise n of known size,
    stretched. All that a denoiser can know of x_0 is E[x_0 | x_t]. Given the light, that is known physics, a mean of
    two witnesses, each with its noise (see `expected`); so the network paints the light f alone, and the loss holds
    E[x_0 | x_t, f] against the noisy picture x_0: no clean picture is needed, and nothing is won by painting grain.
    In linear pictures the best that can be painted has A f = E[A x | x_t], for x the true light.

    Light is drawn by taking the process back to where its noise is half the sky's, of a picture as the telescope of one
    of the deeper exposures of the training data records it, and painting the light behind that: the mean of all light
    that the picture leaves possible. What is fainter than its noise is therefore smoother than in the sky.

    Parameters
    ----------
    unet : ContextUnet
        Paints planes (N, B, k S, k S), and is told the 2 B + 1 numbers of `told`.
    process, image_size, num_bands, limits
        As of `DiffusionGenerator`.
    telescope : LightTelescope

    References
    ----------
    Two noises in Tweedie's formula: Moran et al. 2020, arXiv:1910.11908 (Noisier2Noise); Daras, Dimakis & Daskalakis
    2024, arXiv:2404.10177. The measurement in the loss: Bora, Price & Dimakis 2018, AmbientGAN;
    Daras et al. 2023, arXiv:2305.19256 (Ambient diffusion).
    """

    def __init__(
        self,
        unet: ContextUnet,
        process: GaussianDiffusion,
        image_size: int,
        num_bands: int,
        limits: tuple[float, float],
        telescope: LightTelescope,
    ) -> None:
        super().__init__(unet, process, image_size, num_bands, limits)
        self.telescope = telescope
        self.calm, self.between_pixels = Interpolation(2), Interpolation(telescope.oversampling)
        self.noise_dim = 2 * math.prod(self.shape) + 1  # what is diffused, the pixels', and what chooses an exposure

    def told(self, exposure: Exposure) -> Tensor:
        """Return what the network is told of exposures: noise and PSF width of each band, and the pixels' scale.

        Their logarithms, (N, 2 B + 1), in units of the spread over the training data.
        """
        values, kept = (
            torch.cat([each.noise, each.psf_fwhm, each.pixel_scale[:, None]], 1).clamp_min(1e-6).log()
            for each in (exposure, self.telescope.kept())
        )
        spread = kept.std(0, correction=0).clamp_min(_LEAST_SPREAD)
        return ((values - kept.mean(0)) / spread).clamp(-4, 4)

    def deep_exposure(self, count: int) -> Exposure:
        """Return one of the training data's deeper exposures `count` times: light is drawn in it.

        An eighth of those kept show fainter points yet, by noise times width.
        """
        kept = self.telescope.kept()
        depth = (kept.noise.clamp_min(1e-6).log() + kept.psf_fwhm.clamp_min(1e-6).log()).sum(1)
        return kept.of(depth.argsort(stable=True)[_DEEP].expand(count))

    def output(self, x_t: Tensor, t: Tensor, condition: Tensor, told: Tensor | None = None) -> Tensor:
        """Return what the U-Net paints, (N, B, k S, k S), float32; it is told of the deep exposure, or what is given.

        Otherwise as `DiffusionGenerator.output`.
        """
        told = self.told(self.deep_exposure(len(x_t))) if told is None else told
        return self.unet(x_t, t / self.process.num_steps, condition, told).float() + self.sketch(x_t, t)

    def sketch(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return what the network's painting is added to, (N, B, k S, k S).

        Where the process has added more noise than the telescope, it is nothing in particular, and where less, the
        picture itself: what is left to the network is then to take off blur and grain, at any brightness.
        """
        with torch.autocast(x_t.device.type, enabled=False):
            signal, sigma = _spread(self.process.signal[t]), _spread(self.process.sigma[t])
            picture = self.to_images(x_t / signal.clamp_min(_FAINTEST)).clamp(*self.limits)
            painting = self.telescope.painting_of(self.calm(self.telescope.stretch.flux(picture)))
            grain = (_GRAIN / self.deviation).square() * signal.square()
            share = grain / (grain + sigma.square())
            return self.between_pixels(
                enlarged(torch.lerp(torch.full_like(painting, _DUSK), painting, share), self.telescope.oversampling)
            )

    @property
    def light_time(self) -> int:
        """Step at which light is drawn: where the process's noise is half that of the sky; a GPU is waited for.

        Below, the picture alone tells what it is, and so the loss hardly says what light to paint of the sky.
        """
        return self.process.time_of(_GRAIN / 2 / float(self.deviation))

    def predict_light(self, x_t: Tensor, t: Tensor, condition: Tensor, guidance: float = 1.0) -> Tensor:
        """Return the light (N, B, k S, k S) behind x_t in the deep exposure: nJy a fine pixel, never below 0."""
        return self.telescope.light_of(self._guided(x_t, t, condition, guidance))

    def predict_x0(self, x_t: Tensor, t: Tensor, condition: Tensor, guidance: float = 1.0) -> Tensor:
        """Return the picture, with its noise, that x_t comes from, as far as can be told; of the deep exposure."""
        exposure = self.deep_exposure(len(x_t))
        seen = self.telescope.observed(self.predict_light(x_t, t, condition, guidance), exposure, None)
        return self.clip(self.expected(x_t, t, seen, exposure))

    def expected(self, x_t: Tensor, t: Tensor, seen: Tensor, exposure: Exposure) -> Tensor:
        """Return E[x_0 | x_t] of what a telescope sees without noise.

        x_t / a has two noises, that of the exposure, of variance V, and that of the process, of variance s^2 / a^2.
        How much of their sum is the exposure's, and so part of x_0, is known: V / (V + s^2 / a^2). V and the mean about
        which it lies are those of the stretched noise. There is no gradient in V.

        Parameters
        ----------
        x_t : Tensor, (N, B, S, S)
        t : Tensor, (N,), int64, at least 1
        seen : Tensor, (N, B, S, S)
            nJy a pixel.
        exposure : Exposure

        Returns
        -------
        Tensor, (N, B, S, S)
            Normalised, as x_t is.
        """
        mean, variance = self.telescope.noisy_moments(seen, exposure)
        signal, sigma = _spread(self.process.signal[t]), _spread(self.process.sigma[t])
        return two_noises(x_t, signal, sigma, self.normalise(mean), (variance / self.deviation.square()).detach())

    def observed(self, light: Tensor, rest: Tensor) -> Tensor:
        """Return stretched images (N, B, S, S) of light as one of the training data's exposures shows it.

        `rest`, (N, B S S + 1), are standard normal: the noise of the pixels, and which exposure is taken.
        """
        exposure = self.telescope.kept_exposure(rest[:, -1])
        return self.telescope.stretched(light, exposure, rest[:, :-1].unflatten(1, self.shape))


def two_noises(x_t: Tensor, signal: Tensor, sigma: Tensor, clean: Tensor, variance: Tensor) -> Tensor:
    """Return E[y | x_t] where y is a clean picture and noise of some variance, and x_t = signal y + sigma e.

    `clean` is E[the clean picture | x_t]. With normal noise that is all that it takes, whatever pictures are like
    (Moran et al. 2020; Daras, Dimakis & Daskalakis 2024). All shapes are (N, B, S, S) or go with it.
    """
    return (variance * signal * x_t + sigma.square() * clean) / (variance * signal.square() + sigma.square())


def build_diffusion_generator(config: Config) -> DiffusionGenerator:
    """Return a new diffusion model of the settings' shape, on the CPU."""
    shape = config.condition_dim, config.width, config.image_size, config.unet_blocks, config.unet_patch
    process = GaussianDiffusion(config.noise_schedule, config.diffusion_steps, config.prediction, config.noise_shift)
    limits = FLUX_LIMITS if config.kind == "flux" else (-1.0, 1.0)
    if not config.observes:
        unet = ContextUnet(*shape, config.num_bands)
        return DiffusionGenerator(unet, process, config.image_size, config.num_bands, limits)
    painter = ContextUnet(*shape, config.num_bands, config.oversampling, 2 * config.num_bands + 1)
    telescope = LightTelescope(
        config.image_size, config.oversampling, config.softening, config.psf_profile, config.psf_pixels
    )
    return ObservedDenoiser(painter, process, config.image_size, config.num_bands, limits, telescope)
