"""What every training has: the physics predictor, optimisers, the average, and the state of it all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.compute.compilation import Compiler
from galaxies.compute.device import Engine
from galaxies.compute.forward_pass import ForwardPass
from galaxies.compute.ranks import Ranks
from galaxies.datasets.batches import Batch
from galaxies.networks.flux_grain import measure_flux_noise
from galaxies.networks.layers import ImageGenerator
from galaxies.networks.light_telescope import LightTelescope
from galaxies.telescope.exposure import Exposure
from galaxies.training.loss_terms import PHYSICS, PREDICTOR, LossTerm, Shown, chosen, limits, sums, weighted_sum
from galaxies.training.recovery import Recovery
from galaxies.training.weight_average import PowerAverages, WeightAverage
from physics_model import (
    FluxScale,
    PhysicsPredictor,
    build_predictor,
    photometric_loss,
    physics_loss,
    variance_loss,
)

PHOTOMETRY_EVERY = 4  # steps between photometry's terms, each weighing that much more: it costs like a small network
_VARIANCE_WEIGHT = 0.01  # the variance's layers share the predictor's clipped gradient norm, and must not fill it

# Terms of one step, then the sum (E,) and the number of known values (E,) of each of `Learner.errors`.
StepResult = tuple[list[Tensor], Tensor, Tensor]


class Variant(NamedTuple):
    """What a step does besides the usual.

    Attributes
    ----------
    phase : {"predictor", "generator"}
    due : tuple of str
        Those of the terms that not every step computes which this one does.
    """

    phase: str
    due: tuple[str, ...] = ()


@dataclass
class Predicted:
    """What the predictor's losses are computed from: what it says of real images, and the truth."""

    batch: Batch
    predicted: Tensor  # (N, A)
    log_variance: Tensor | None  # (N, A), without `uncertainty` None
    physics: tuple[Tensor, Tensor, Tensor]  # as `physics_loss` returns them


@dataclass
class Drawn:
    """What physics sees of generated images, and what was asked of them."""

    images: Tensor  # (N, B, S, S)
    asked: Batch
    known: Tensor  # (N, A), how much each value counts
    reliability: Tensor | None  # (N, A), how well the predictor reads it; 0 where it has no claim
    physics: tuple[Tensor, Tensor, Tensor]  # as `physics_loss` returns them


def _physics(_: Learner, seen: Predicted | Drawn) -> Tensor:
    return seen.physics[0]


def _doubt(learner: Learner, seen: Predicted) -> Tensor:
    batch = seen.batch
    if seen.log_variance is None:
        raise ValueError("a predictor without uncertainty has no variance to learn")
    return variance_loss(seen.predicted, seen.log_variance, batch.scaled, batch.known, learner.ranks.mean)


def _photometry(learner: Learner, seen: Drawn) -> Tensor:
    scale = learner.flux_scale
    if scale is not None and seen.asked.exposure is not None:
        scale = scale.of_exposure(seen.asked.exposure)
    return photometric_loss(seen.images, seen.asked.scaled, seen.known, learner.attributes, learner.ranks.mean, scale)


PREDICTOR_TERMS = (
    LossTerm("physics", 1.0, _physics, "predictor", part_of="", label="mean", chart=PREDICTOR),
    LossTerm("doubt", _VARIANCE_WEIGHT, _doubt, "predictor", part_of="", wanted=lambda c: c.uncertainty, logged=False),
)
# Of every generator's loss; `seen` is a `Drawn`.
PHYSICS_TERMS = (
    LossTerm("physics", "physics_weight", _physics, chart=PHYSICS),
    LossTerm(
        "photometry",
        "photometry_weight",
        _photometry,
        every=PHOTOMETRY_EVERY,
        first=PHOTOMETRY_EVERY // 2,
        chart=PHYSICS,
    ),
)


class Learner(ABC):
    """The networks of a run and their updates: what the two families, GAN and diffusion, have in common.

    A step never makes the host wait for the device, and all that it changes are tensors that stay in place, so that
    `cuda_graphs.RecordedStep` can record it. An update whose gradient or loss is not finite is left out, and what the
    pass left in running statistics is taken back; the returned terms tell. See `Recovery` for what follows from that.

    Parameters
    ----------
    networks : dict of str to nn.Module
        All networks but the predictor, on the CPU; one is the ``generator``.
    config : Config
    engine : Engine
    ranks : Ranks

    Attributes
    ----------
    table : tuple of LossTerm
        All terms of the losses of the generator's phase that there are.
    loss_terms : tuple of LossTerm
        Those that this run has, and the predictor's.
    terms : dict of str to tuple of str
        The scalar terms that each phase's steps return, in order.
    limits : tuple of float, or None
        The least loss of the discriminator, and what one pays that cannot tell.
    recoveries : dict of str to Recovery
        Of each network: what part of its step size it takes.
    claims : Tensor, (A,)
        1 for each attribute that the generator is held to by what the predictor (and the discriminator) reads, or 0.
    """

    table: ClassVar[tuple[LossTerm, ...]]
    average: WeightAverage[ImageGenerator] | None

    def __init__(self, networks: dict[str, nn.Module], config: Config, engine: Engine, ranks: Ranks) -> None:
        self.config, self.engine, self.ranks = config, engine, ranks
        self.compiler = Compiler(engine.compiled)
        # Several ranks exchange sums within the losses, and meet at the same operation only where all run it as it is.
        self._sum_up = self.compiler(weighted_sum) if ranks.size == 1 else weighted_sum
        self._compare = self.compiler(physics_loss) if ranks.size == 1 else physics_loss
        self.loss_terms = chosen((*PREDICTOR_TERMS, *self.table), config)
        self.limits = limits(self.loss_terms, config)
        self.terms = {
            phase: (*(t.name for t in self._terms_of(phase) if t.logged), *self.gauges(phase))
            for phase in ("predictor", "generator")
        }
        self.attributes = config.attribute_rows
        self.flux_scale = FluxScale.of(config, engine.device)
        networks = networks | {"predictor": build_predictor(config)}
        self.networks = {name: self._place(network) for name, network in networks.items()}
        self.generator = cast(ImageGenerator, self.networks["generator"])
        self.predictor = cast(PhysicsPredictor, self.networks["predictor"])
        self._predict = ForwardPass(self.predictor, engine, "distribution", self.compiler)
        rates = dict.fromkeys(self.networks, config.learning_rate) | {"predictor": config.pretrain_learning_rate}
        self.optimizers = {
            name: engine.adam(module, rates[name], (float(config.beta1), float(config.beta2)), *self.slowed(name))
            for name, module in self.networks.items()
        }
        self.recoveries = {name: Recovery(engine.device, config.on_nan == "recover") for name in self.networks}
        self.claims = torch.ones(len(self.attributes), device=engine.device)
        self._statistics = {name: engine.join_statistics(module) for name, module in self.networks.items()}
        self._left_out: dict[str, Tensor] = {}  # by network: 1 if the step at hand leaves its update out, else 0
        self.average = WeightAverage(self.generator, config.ema_decay) if config.ema_decay else None
        # Any length of average can be made of them when the training is over.
        self.power_averages = PowerAverages(self.generator) if config.average_snapshots else None
        self.noise = torch.Generator(engine.device).manual_seed(config.seed)

    def _place(self, network: nn.Module) -> nn.Module:
        network = self.engine.prepare(self.ranks.couple_batch_norm(network))
        self.ranks.share(network)
        return network

    def learn_statistics(
        self, attribute_variance: Tensor, images: Tensor, conditions: Tensor, exposures: Exposure | None = None
    ) -> None:
        """Take over what a new run should know of its data.

        Parameters
        ----------
        attribute_variance : Tensor, (A,)
            Of the scaled attributes.
        images : Tensor, (N, B, S, S)
            Some of the training images.
        conditions : Tensor, (N, C)
            What they show.
        exposures : Exposure, optional
            How some of the training images were observed, where the generator paints light.
        """
        self.predictor.prior_variance.copy_(attribute_variance)
        networks = (self.generator, *([self.average.module] if self.average else []))
        telescopes = [part for one in networks for part in one.modules() if isinstance(part, LightTelescope)]
        if not telescopes:
            return
        if exposures is None:
            raise ValueError("a generator of light has to know how the data were observed")
        told = torch.tensor(self.config.photons or (0.0,) * self.config.num_bands)
        photons = told
        if not (told > 0).all():
            photons = torch.where(told > 0, told, measure_flux_noise(images, self.config.softening).photons)
        for telescope in telescopes:
            telescope.learn(exposures, photons)

    def slowed(self, name: str) -> tuple[Sequence[nn.Parameter], float]:
        """Return which parameters of a network take smaller steps than its others, and what share of them."""
        return (), 1.0

    def step_sizes(self) -> dict[str, list[float]]:
        """Return the step sizes of each network as they are set, the largest first."""
        return {
            name: [float(group["rate"]) for group in optimizer.param_groups]
            for name, optimizer in self.optimizers.items()
        }

    def give_claims(self, wanted: Sequence[bool]) -> None:
        """Say of each attribute whether it has a claim on the generator's loss; the first rank's word counts."""
        values = torch.tensor([float(one) for one in wanted], device=self.engine.device)
        self.claims.copy_(self.ranks.mean(values * self.ranks.is_first) * self.ranks.size)

    def errors(self, phase: str) -> tuple[str, ...]:
        """Return the names of the squared errors that a phase's steps return, in order."""
        return tuple(f"physics_{name}" for name in self.config.attributes)

    def gauges(self, phase: str) -> tuple[str, ...]:
        """Return the names of what a phase's steps return after the terms of the losses, in order."""
        return ("grad_norm",)

    def shown(self) -> tuple[Shown, ...]:
        """Return how the numbers of the generator's phase are shown, in order."""
        return (Shown("g_loss", "G", ""), *(term.shown for term in self._terms_of("generator") if term.logged))

    def with_sums(self, means: dict[str, float]) -> dict[str, float]:
        """Return the means of the generator's phase with those of the losses that are sums of terms."""
        return means | sums(self._terms_of("generator"), self.config, means)

    def variant(self, phase: str, step: int) -> Variant:
        """Return what the step with this number in its phase does."""
        rare = (term for term in self._terms_of(phase) if term.every > 1)
        return Variant(phase, tuple(term.name for term in rare if term.is_due(self.config, step)))

    def _terms_of(self, phase: str) -> tuple[LossTerm, ...]:
        """Return the terms of the losses of a phase."""
        return tuple(term for term in self.loss_terms if (term.network == "predictor") == (phase == "predictor"))

    def _loss(self, network: str, seen: Any, variant: Variant) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a network's loss and its terms."""
        terms = tuple(term for term in self.loss_terms if term.network == network)
        due = tuple(term.name for term in terms if term.name in variant.due)
        plain = any(term.takes_gradient for term in terms if term.name in due)
        return (weighted_sum if plain else self._sum_up)(terms, self, seen, due)

    def schedule(self, phase: str, step: int, total_steps: int) -> None:
        """Set the step size for the step with this number out of `total_steps`; to be called between steps."""
        config, progress = self.config, step / total_steps
        if phase == "predictor" and config.pretrain_decay:
            self.engine.set_learning_rate(self.optimizers["predictor"], config.pretrain_learning_rate * (1 - progress))
        elif phase == "generator" and (config.decay > 0 or config.warmup > 0):
            rate = config.learning_rate
            if config.decay > 0:
                rate *= min(1.0, (1 - progress) / config.decay)
            if config.warmup > 0:
                rate *= min(1.0, (step + 1) / config.warmup)
            for name in self.networks.keys() - {"predictor"}:
                self.engine.set_learning_rate(self.optimizers[name], rate)

    def step(self, batch: Batch, variant: Variant) -> StepResult:
        """Take the step that the variant describes."""
        in_phase_1 = variant.phase == "predictor"
        trained = [name for name in self.networks if (name == "predictor") == in_phase_1]
        before = {name: self._statistics[name].clone() for name in trained if self._statistics[name].numel()}
        if in_phase_1:
            result = self._predictor_step(batch, variant)
        else:
            self.predictor.eval().requires_grad_(False)
            result = self._generator_step(batch, variant)
        # A pass that overflowed has left its traces in the statistics of every network that it went through.
        if before:
            spoilt = torch.stack([self._left_out[name] for name in trained]).sum() > 0
            for name, kept in before.items():
                self._statistics[name].copy_(torch.where(spoilt, kept, self._statistics[name]))
        if not in_phase_1:
            for average in (self.average, self.power_averages):
                if average is not None:
                    average.update(self.generator)
        return result

    def _predictor_step(self, batch: Batch, variant: Variant) -> StepResult:
        """Update the predictor on real images."""
        self.predictor.train()
        predicted, log_variance = self._predict(batch.images)
        physics = self._compare(predicted, batch.scaled, batch.known, share_count=self.ranks.mean)
        total, terms = self._loss("predictor", Predicted(batch, predicted, log_variance, physics), variant)
        terms["grad_norm"] = self._update("predictor", total)
        return [terms[name] for name in self.terms["predictor"]], *physics[1:]

    def _physics_of(
        self, images: Tensor, asked: Batch, known: Tensor
    ) -> tuple[Tensor | None, tuple[Tensor, Tensor, Tensor]]:
        """Let the predictor read generated images: its reliability, and what `physics_loss` returns."""
        predicted, log_variance = self._predict(images)
        reliability = self.predictor.reliability(log_variance)
        if self.config.readable_only:
            reliability = self.claims.expand_as(known) if reliability is None else reliability * self.claims
        return reliability, self._compare(predicted, asked.scaled, known, reliability, self.ranks.mean)

    @abstractmethod
    def _generator_step(self, batch: Batch, variant: Variant) -> StepResult:
        """Update the generator on one batch; the predictor is frozen."""

    def _draw(self, *shape: int, uniform: bool = False) -> Tensor:
        """Draw numbers for the whole batch of all ranks, the same on each, and return this rank's rows.

        Standard normal ones of `shape` an image, or uniform ones between 0 and 1.
        """
        size, draw = self.config.batch_size, torch.rand if uniform else torch.randn
        drawn = draw(self.ranks.size * size, *shape, generator=self.noise, device=self.engine.device)
        return drawn[self.ranks.rows(size)]

    def _update(self, name: str, loss: Tensor) -> Tensor:
        """Take one clipped optimiser step unless loss or gradient are not finite; return its norm before clipping."""
        optimizer, parameters = self.optimizers[name], list(self.networks[name].parameters())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.ranks.average_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
        recovery = self.recoveries[name]
        # All ranks have to find the same, and each has a loss of its own.
        checked = norm + self.ranks.mean(loss.detach())
        self._left_out[name] = self.engine.step_if_finite(optimizer, checked, recovery.part)
        recovery.count(self._left_out[name])
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Return networks, optimisers, the average, and the states of all random generators."""
        return {
            "networks": {name: module.state_dict() for name, module in self.networks.items()},
            # Their settings follow from the run's settings and the device.
            "optimizers": {name: self._moments(name) for name in self.optimizers},
            "claims": self.claims.clone(),
            "recovery": {name: recovery.state_dict() for name, recovery in self.recoveries.items()},
            "ema": self.average.state_dict() if self.average is not None else None,
            **({"power_averages": self.power_averages.state_dict()} if self.power_averages is not None else {}),
            "random": {
                **self.engine.random_states(),
                "noise": self.noise.get_state(),
                "noise_device": self.engine.device.type,
            },
        }

    def _places(self, name: str) -> list[int]:
        """Say of each parameter in the order of a network's optimiser where it is in the network's own order.

        By that one a checkpoint numbers them, which does not depend on the groups that they are in.
        """
        places = {id(parameter): place for place, parameter in enumerate(self.networks[name].parameters())}
        return [places[id(p)] for group in self.optimizers[name].param_groups for p in group["params"]]

    def _moments(self, name: str) -> dict[int, Any]:
        """Return what Adam knows of each parameter, by its place in the network."""
        found, places = self.optimizers[name].state_dict()["state"], self._places(name)
        return {places[number]: moments for number, moments in sorted(found.items(), key=lambda i: places[i[0]])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`.

        Raises
        ------
        UserError
            If the networks are not those of this release.
        """
        try:
            for name, module in self.networks.items():
                module.load_state_dict(state["networks"][name])
            if self.average is not None:
                self.average.load_state_dict(state["ema"])
            if self.power_averages is not None:
                self.power_averages.load_state_dict(state["power_averages"])
        except RuntimeError:
            raise UserError("the checkpoint holds networks of another release: train again") from None
        for name, optimizer in self.optimizers.items():
            content = optimizer.state_dict()
            moments = {new: state["optimizers"][name].get(old) for new, old in enumerate(self._places(name))}
            content["state"] = {new: found for new, found in moments.items() if found is not None}
            optimizer.load_state_dict(content)
        self.claims.copy_(state["claims"])
        for name, recovery in self.recoveries.items():
            recovery.load_state_dict(state["recovery"][name])
        saved_on, device = state["random"]["noise_device"], self.engine.device.type
        if saved_on == device:
            self.noise.set_state(state["random"]["noise"])
        else:
            # Generators of different devices share no state: go on with noise of the run's own that was not used yet.
            self.noise.manual_seed(self.config.seed + 1 + state["step"])
            print(f"saved on {saved_on}, going on on {device}: the run continues, but not to the same bits")
        self.engine.restore_random_states(state["random"])
