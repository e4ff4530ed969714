"""From a checkpoint to galaxies: seeds, drawn attributes, support."""

from __future__ import annotations

import math

import pytest
import torch

from config_physics import Config, UserError
from engine import Engine
from gan_model import Generator
from sampling import GalaxySampler, Population, generator_weights


@pytest.fixture(scope="module")
def sampler() -> GalaxySampler:
    config = Config(width=8, latent_dim=16, attributes=("size", "ellipticity"))
    torch.manual_seed(0)
    network = Generator(16, config.condition_dim, 8)
    # Fresh batch-norm statistics make every image grey; one pass in training mode spreads the values.
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    network(torch.randn(64, 16) * 4, torch.rand(64, config.condition_dim) * 4)
    classes = torch.arange(4).repeat_interleave(200)
    generator = torch.Generator().manual_seed(1)
    size = 0.1 + 0.1 * torch.rand(800, generator=generator)
    values = torch.stack([size, 4 * (size - 0.1)], 1)  # ellipticity follows from size
    return GalaxySampler(network, config, Population(classes, values), Engine.choose("cpu", "fp32"))


def request(count: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    classes = torch.arange(count) % 4
    return classes, torch.full((count, 2), 0.15), list(range(100, 100 + count))


def test_images_are_bytes_that_differ_by_seed(sampler):
    images = sampler.generate(*request(5))
    assert images.dtype == torch.uint8 and images.shape == (5, 3, 64, 64)
    classes, values, _ = request(2)
    first, second = sampler.generate(classes[:1].repeat(2), values, [1, 2])
    assert (first.int() - second.int()).abs().max() > 8


@pytest.mark.parametrize("size", [1, 2, 7, 16, 17])
def test_image_does_not_depend_on_the_batch(sampler, size):
    classes, values, seeds = request(40)
    together = sampler.generate(classes, values, seeds)
    parts = [
        sampler.generate(classes[k : k + size], values[k : k + size], seeds[k : k + size]) for k in range(0, 40, size)
    ]
    assert torch.equal(torch.cat(parts), together)


def test_changing_one_attribute_changes_the_image(sampler):
    classes, values, seeds = torch.zeros(2, dtype=torch.int64), torch.tensor([[0.1, 0.2], [0.1, 0.6]]), [5, 5]
    first, second = sampler.generate(classes, values, seeds)
    assert not torch.equal(first, second)


def test_generating_leaves_the_network_in_its_mode_and_draws_no_global_random_numbers(sampler):
    sampler.network.train()
    before = torch.get_rng_state()
    statistics = [b.clone() for b in sampler.network.buffers()]
    sampler.generate(*request(3))
    assert sampler.network.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(statistics, sampler.network.buffers(), strict=True))


def test_unset_attributes_come_from_one_real_galaxy(sampler):
    nothing = torch.full((2,), math.nan)
    drawn = torch.stack([sampler.complete(1, nothing, seed) for seed in range(50)])
    torch.testing.assert_close(drawn[:, 1], 4 * (drawn[:, 0] - 0.1))
    assert len(torch.unique(drawn[:, 0])) > 20


def test_drawing_respects_what_is_set(sampler):
    drawn = torch.stack([sampler.complete(0, torch.tensor([0.15, math.nan]), seed) for seed in range(30)])
    assert (drawn[:, 0] == 0.15).all()
    # The 8 nearest of 200 galaxies lie within 0.004 or so of 0.15, and their ellipticity within 0.016 of 0.2.
    assert (drawn[:, 1] - 0.2).abs().max() < 0.03


def test_drawing_is_fixed_by_the_seed(sampler):
    nothing = torch.full((2,), math.nan)
    assert torch.equal(sampler.complete(2, nothing, 9), sampler.complete(2, nothing, 9))


def test_unknown_values_of_the_drawn_galaxy_stay_unknown():
    population = Population(torch.zeros(20, dtype=torch.int64), torch.tensor([[0.1, math.nan]]).repeat(20, 1))
    drawn = population.draw(0, torch.full((2,), math.nan), torch.Generator().manual_seed(0))
    assert drawn[0] == pytest.approx(0.1) and math.isnan(drawn[1])


def test_a_class_without_members_leaves_the_request_as_it_is(sampler):
    population = Population(torch.zeros(3, dtype=torch.int64), torch.rand(3, 2))
    drawn = population.draw(2, torch.tensor([0.2, math.nan]), torch.Generator())
    assert drawn[0] == pytest.approx(0.2) and math.isnan(drawn[1])


def test_supported_range_is_the_central_98_percent():
    population = Population(torch.zeros(101, dtype=torch.int64), torch.arange(101.0)[:, None])
    assert population.supported_range(0, 0) == pytest.approx((1.0, 99.0))
    assert population.supported_range(1, 0) is None


def test_unsupported_requests_name_attribute_and_range(sampler):
    assert sampler.unsupported(0, torch.tensor([0.15, math.nan])) == []
    (sentence,) = sampler.unsupported(0, torch.tensor([0.9, 0.2]))
    assert sentence.startswith("size 0.9 is outside the range 0.1")
    assert "frame widths that spiral galaxies" in sentence


def test_a_class_without_real_galaxies_is_unsupported(sampler):
    empty = Population(torch.zeros(3, dtype=torch.int64), torch.rand(3, 2))
    other = GalaxySampler(sampler.network, sampler.config, empty, sampler.engine)
    assert other.unsupported(2, torch.full((2,), math.nan)) == ["there is no merger galaxy in the training data"]


def test_averaged_weights_are_preferred():
    state = {"ema": {"num_averaged": 3, "w": 1}, "networks": {"generator": {"w": 2}}}
    assert generator_weights(state) == {"w": 1}
    assert generator_weights({**state, "ema": None}) == {"w": 2}


def test_checkpoint_round_trip_gives_the_trainer_images(trained, data):
    first = GalaxySampler.from_checkpoint(trained / "checkpoints/tiny/latest.pt", "cpu")
    again = GalaxySampler.from_checkpoint(trained / "checkpoints/tiny/epoch_0002.pt", "cpu")
    classes, values = torch.tensor([0, 3]), torch.tensor([[0.1, 0.3, 0.2, math.nan]]).repeat(2, 1)
    assert torch.equal(first.generate(classes, values, [1, 2]), again.generate(classes, values, [1, 2]))


def test_missing_checkpoint_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint"):
        GalaxySampler.from_checkpoint(tmp_path / "no.pt")
