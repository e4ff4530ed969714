"""The recipe that this project started from, written as plainly as PyTorch allows: what speed is compared with.

    python benchmarks/eager_reference.py

A DCGAN with transposed convolutions, its discriminator with condition planes beside the image and a sigmoid at the
end, a predictor of three convolutions; float32, Adam, clipped gradients, and every loss read back in every step.
Nothing of it is tuned, and nothing is shared with the networks of the project, so that no change of theirs moves it.

Parameter counts and the time of a step agree with those of another plain version of the recipe, written independently
(2,154,371, 1,720,641 and 438,532 parameters; 1.84 against 1.86 s a step on one core).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import timing
from galaxies.command_line import Parser, add_device_option, run_script
from galaxies.common import hardware
from galaxies.compute.device import Engine

IMAGE_PX = 64
NUM_CLASSES, NUM_ATTRIBUTES, LATENT_DIM = 4, 4, 100
BATCH = 64
_CONDITION = NUM_CLASSES + NUM_ATTRIBUTES


class PlainGenerator(nn.Module):
    """256-256-128-64-3 channels, doubled by transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(LATENT_DIM + _CONDITION, 256 * 4 * 4)
        self.grow = nn.Sequential(
            *self._doubling(256, 256),
            *self._doubling(256, 128),
            *self._doubling(128, 64),
            nn.ConvTranspose2d(64, 3, 4, 2, 1),
            nn.Tanh(),
        )

    @staticmethod
    def _doubling(c_in: int, c_out: int) -> tuple[nn.Module, ...]:
        return nn.ConvTranspose2d(c_in, c_out, 4, 2, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """Return images (N, 3, 64, 64) in (-1, 1)."""
        return self.grow(self.start(torch.cat([z, condition], 1)).reshape(-1, 256, 4, 4))


class PlainDiscriminator(nn.Module):
    """64-128-256-256 channels, halved by strided convolutions; a probability comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.shrink = nn.Sequential(
            nn.Conv2d(3 + _CONDITION, 64, 4, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
            *self._halving(64, 128),
            *self._halving(128, 256),
            *self._halving(256, 256),
        )
        self.decide = nn.Sequential(nn.Flatten(), nn.Linear(256 * 4 * 4, 1), nn.Sigmoid())

    @staticmethod
    def _halving(c_in: int, c_out: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(c_in, c_out, 4, 2, 1, bias=False), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2, inplace=True)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """Return probabilities (N, 1) that the images are real."""
        planes = condition[:, :, None, None].expand(-1, -1, IMAGE_PX, IMAGE_PX)
        return self.decide(self.shrink(torch.cat([images, planes], 1)))


class PlainPredictor(nn.Module):
    """64-128-256 channels, averaged, then two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for c_in, c_out in ((3, 64), (64, 128), (128, 256)):
            layers += [nn.Conv2d(c_in, c_out, 3, 2, 1), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.3)]
        self.read = nn.Sequential(*layers, nn.Linear(256, NUM_ATTRIBUTES))

    def forward(self, images: Tensor) -> Tensor:
        """Return attributes (N, 4)."""
        return self.read(images)


class PlainTraining:
    """The networks with their optimisers, and one step of each phase on random images.

    Parameters
    ----------
    device : torch.device
    batch : int
        Images a step.
    """

    def __init__(self, device: torch.device, batch: int = BATCH) -> None:
        self.device, self.batch = device, batch
        self.generator = PlainGenerator().to(device)
        self.discriminator = PlainDiscriminator().to(device)
        self.predictor = PlainPredictor().to(device)
        self._optimizers: dict[nn.Module, torch.optim.Adam] = {
            network: torch.optim.Adam(network.parameters(), 1.5e-4, (0.5, 0.999))
            for network in (self.generator, self.discriminator, self.predictor)
        }
        self._loss, self._distance = nn.BCELoss(), nn.MSELoss()

    def run(self, phase: str, steps: int) -> None:
        """Take steps of a phase, `predictor` or `generator`, with the settings that PyTorch has by itself."""
        step = self.predictor_step if phase == "predictor" else self.generator_step
        with plain_settings():
            for _ in range(steps):
                step()

    def predictor_step(self) -> float:
        """Teach the predictor on one batch; return its loss."""
        images, _, attributes = self._draw()
        self.predictor.train().requires_grad_(True)
        loss = self._distance(self.predictor(images), attributes)
        self._update(self.predictor, loss)
        return loss.item()

    def generator_step(self) -> tuple[float, float]:
        """Teach the discriminator, then the generator; return their losses."""
        real, condition, attributes = self._draw()
        self.predictor.eval().requires_grad_(False)
        fake = self.generator(torch.randn(self.batch, LATENT_DIM, device=self.device), condition)

        on_real, on_fake = self.discriminator(real, condition), self.discriminator(fake.detach(), condition)
        d_loss = self._loss(on_real, torch.full_like(on_real, 0.9)) + self._loss(on_fake, torch.full_like(on_fake, 0.1))
        self._update(self.discriminator, d_loss)

        judged = self.discriminator(fake, condition)
        g_loss = self._loss(judged, torch.ones_like(judged)) + 3 * self._distance(self.predictor(fake), attributes)
        self._update(self.generator, g_loss)
        return d_loss.item(), g_loss.item()

    def _draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return random images in [-1, 1], their conditions and, of these, the attributes."""
        images = 2 * torch.rand(self.batch, 3, IMAGE_PX, IMAGE_PX, device=self.device) - 1
        classes = torch.randint(0, NUM_CLASSES, (self.batch,), device=self.device)
        attributes = torch.rand(self.batch, NUM_ATTRIBUTES, device=self.device)
        return images, torch.cat([nn.functional.one_hot(classes, NUM_CLASSES).float(), attributes], 1), attributes

    def _update(self, network: nn.Module, loss: Tensor) -> None:
        optimizer = self._optimizers[network]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()


@contextlib.contextmanager
def plain_settings() -> Iterator[None]:
    """Compute as PyTorch does where nobody chose anything, whatever the project's engine has chosen."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=True):
        matmul.allow_tf32 = False
        try:
            yield
        finally:
            matmul.allow_tf32 = before


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(description=__doc__)
    timing.add_timing_options(parser, reference=False)
    add_device_option(parser)
    parser.add_argument(
        "--batch-size", type=timing.at_least(2), default=BATCH, metavar="N", help=f"images a step (default: {BATCH})"
    )
    parser.add_argument(
        "--steps", type=timing.at_least(1), default=8, metavar="N", help="steps a timed repeat (default: 8)"
    )
    options = parser.parse_args(argv)
    device = Engine.choose(options.device, "fp32").device
    training = PlainTraining(device, options.batch_size)
    networks = {"generator": training.generator, "discriminator": training.discriminator}
    networks["predictor"] = training.predictor
    rows = []
    for phase in ("predictor", "generator"):
        works = {phase: lambda phase=phase: training.run(phase, options.steps)}
        seconds = timing.in_turns(works, options.repeats, device)[phase]
        rows.append(timing.row(f"plain eager {phase} step", seconds, options.batch_size, options.steps))
    facts = {f"{name}_parameters": sum(p.numel() for p in n.parameters()) for name, n in networks.items()}
    sizes = {"batch": options.batch_size, "steps": options.steps, "precision": "fp32"}
    timing.print_result("eager_reference", hardware.describe(device), sizes, rows, facts)


if __name__ == "__main__":
    run_script(main)
