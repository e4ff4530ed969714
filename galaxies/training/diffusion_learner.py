"""The update of a step of the diffusion model."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from config_physics import Config
from diffusion_model import denoising_loss
from galaxies.compute.engine import Engine
from galaxies.compute.ranks import Ranks
from galaxies.datasets.batches import Batch
from galaxies.generation.sampler import build_generator
from galaxies.training.learner import PHOTOMETRY_EVERY, Learner, StepResult, Variant
from physics_model import photometric_loss, physics_loss


class DiffusionLearner(Learner):
    """A U-Net that learns to take noise off galaxies, held to their physics where the image can be seen; see `Learner`.

    The two parts of the physics loss look at the predicted image. At high noise that is a blurred mean over all that
    may be hidden there, so each image's part weighs as much as there is signal in it, alpha bar = SNR / (1 + SNR)
    (unless min_snr_gamma is 0).
    """

    terms: ClassVar[dict[str, tuple[str, ...]]] = {
        "predictor": ("physics", "grad_norm"),
        "generator": ("denoising", "physics", "photometry", "grad_norm"),
    }

    def __init__(self, config: Config, engine: Engine, ranks: Ranks | None = None) -> None:
        super().__init__({"generator": build_generator(config)}, config, engine, ranks or Ranks())
        batch = self.ranks.size * config.batch_size
        place = torch.arange(batch, device=engine.device)[self.ranks.rows(config.batch_size)]
        # Where an image's noise levels begin, and how far they go: evenly spread ones (Kingma et al. 2021,
        # arXiv:2107.00630, appendix I.1) make the loss of a batch less of a lottery.
        self._levels = (place / batch, 1 / batch) if config.stratified else (0.0, 1.0)

    def learn_statistics(self, attribute_variance: Tensor, images: Tensor, conditions: Tensor) -> None:
        """Take over what a new run should know of its data; see `Learner.learn_statistics`."""
        super().learn_statistics(attribute_variance, images, conditions)
        if self.config.normalize:
            mean = images.mean((0, 2, 3))[:, None, None]
            deviation = (images - mean).square().mean().sqrt()
            for network in (self.generator, *([self.average.module] if self.average else [])):
                network.mean.copy_(mean)
                network.deviation.fill_(float(deviation))

    def with_sums(self, means: dict[str, float]) -> dict[str, float]:
        """Return the means with the denoiser's whole loss."""
        return means | {"g_loss": means["denoising"] + self._physics_sum(means)}

    def _generator_step(self, batch: Batch, variant: Variant) -> StepResult:
        config, model, share_count = self.config, self.generator, self.ranks.mean
        process = model.process
        statistics = self._statistics.clone()
        x0 = model.normalise(batch.images)
        start, length = self._levels
        level = start + length * self._draw(uniform=True)
        t = process.draw_times(level, config.low_noise_share)
        told = (self._draw(uniform=True) >= config.condition_dropout).float()
        noise = self._draw(*model.shape)
        x_t = process.q_sample(x0, t, noise)
        with self.engine.autocast():
            output = model.output(x_t, t, batch.condition * told[:, None])
        denoising = denoising_loss(output, process.target(x0, t, noise), process.loss_weight(t, config.min_snr_gamma))

        images = model.to_images(process.predict_x0(x_t, t, output)).clamp(-1, 1)
        weight = told * process.alphas_cumprod[t] if config.min_snr_gamma else told
        known = batch.known * weight[:, None]  # a part of a value counts as that part of one
        with self.engine.autocast():
            predicted, log_variance = self.predictor.distribution(images)
        reliability = self.predictor.reliability(log_variance)
        physics, squared_errors, counts = physics_loss(predicted, batch.scaled, known, reliability, share_count)
        measured = torch.zeros_like(denoising)
        if variant.photometric:
            measured = PHOTOMETRY_EVERY * photometric_loss(images, batch.scaled, known, self.attributes, share_count)
        total = denoising + config.physics_weight * physics + config.photometry_weight * measured
        return [denoising, physics, measured, self._update_generator(total, statistics)], squared_errors, counts
