"""Philox against the vectors of its authors, and what is made of its words."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from galaxies.compute.seeded_noise import (
    DRAW,
    NOISE,
    PIXELS,
    coarse_normal,
    philox4x32,
    random_index,
    random_words,
    random_words_on_device,
    standard_normal,
)
from tests.conftest import needs_cuda


def words(text: str) -> list[np.ndarray]:
    return [np.array([int(word, 16)], np.uint64) for word in text.split()]


# tests/kat_vectors of Random123 (Salmon et al. 2011), philox4x32 with 10 rounds: counter, key, answer.
@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_known_answers(counter, key, answer):
    assert [int(w[0]) for w in philox4x32(words(counter), words(key))] == [int(w[0]) for w in words(answer)]


def test_seed_is_the_key_and_the_place_is_the_counter():
    seed = 0x299F31D0A4093822
    (found,) = random_words([seed], 8, DRAW)
    expected = philox4x32(words("1 0 0 1"), words("a4093822 299f31d0"))
    assert found[4:].tolist() == [int(w[0]) for w in expected]


def test_seeds_may_be_anything_that_64_bits_hold():
    found = random_words([0, 1, -1, 2**63 - 1, -(2**63), 2**32], 4, NOISE)
    assert len(np.unique(found, axis=0)) == 6


def test_first_noise_of_seed_zero():
    # Words 6627e8d5 and e169c58d by hand: u1 = 0.39904..., u2 = 0.88052...
    u1, u2 = (0x6627E8D5 + 0.5) / 2**32, 0xE169C58D / 2**32
    radius = np.sqrt(-2 * np.log(u1))
    expected = [radius * np.cos(2 * np.pi * u2), radius * np.sin(2 * np.pi * u2)]
    assert standard_normal([0], 2)[0].tolist() == pytest.approx(expected, rel=1e-6)


def test_noise_is_normal_and_uncorrelated():
    z = standard_normal(range(20_000), 6).double()
    assert z.mean(0).abs().max() < 0.03  # 4 standard errors
    assert (z.var(0) - 1).abs().max() < 0.04
    assert (z.pow(4).mean(0) - 3).abs().max() < 0.3
    assert (z.T.corrcoef() - torch.eye(6)).abs().max() < 0.03
    assert abs(float(torch.corrcoef(torch.stack([z[:-1, 0], z[1:, 0]]))[0, 1])) < 0.03  # neighbouring seeds


@pytest.mark.parametrize("size", [1, 3, 1024, 1500])
def test_noise_of_a_seed_is_the_same_in_any_company(size):
    together = standard_normal(range(3000), 10)
    parts = torch.cat(
        [standard_normal(range(k, min(k + size, 3000)), 10) for k in range(0, 9 * size, size) if k < 3000]
    )
    assert torch.equal(parts, together[: len(parts)])


def test_longer_noise_begins_with_the_shorter():
    assert torch.equal(standard_normal([5, 6], 100)[:, :7], standard_normal([5, 6], 7))


def test_extreme_words_give_finite_noise(monkeypatch):
    for word in (0, 2**32 - 1):
        monkeypatch.setattr(
            "galaxies.compute.seeded_noise.random_words",
            lambda s, n, _, w=word: np.full((len(s), n), w, np.uint64),
        )
        assert standard_normal([0], 4).abs().max() < 6.8


def test_first_coarse_noise_of_a_seed():
    (word, *_) = random_words([3], 4, PIXELS)[0].tolist()
    # The quantile function by bisection of the error function.
    expected = []
    for half in (word & 0xFFFF, word >> 16):
        low, high = -5.0, 5.0
        for _ in range(60):
            middle = (low + high) / 2
            below = (1 + math.erf(middle / math.sqrt(2))) / 2 < (half + 0.5) / 65536
            low, high = (middle, high) if below else (low, middle)
        expected.append(low)
    assert coarse_normal([3], 2)[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_coarse_noise_is_normal_and_uncorrelated():
    z = coarse_normal(range(300), 14_700).double()
    flat = z.flatten()  # 4.4 million
    assert flat.mean().abs() < 0.002
    assert flat.var().item() == pytest.approx(1, abs=0.003)
    assert flat.pow(4).mean().item() == pytest.approx(3, abs=0.02)
    for lag in (1, 2, 3, 4, 70, 4900):
        assert (z[:, lag:] * z[:, :-lag]).mean().abs() < 0.003, lag
    assert (z[1:] * z[:-1]).mean().abs() < 0.003  # neighbouring seeds
    assert (z[:, :7000] * standard_normal(range(300), 7000)).mean().abs() < 0.004


def test_coarse_noise_of_a_seed_is_the_same_in_any_company_and_length():
    together = coarse_normal(range(40), 100)
    assert torch.equal(coarse_normal([17], 100), together[17:18])
    assert torch.equal(coarse_normal(range(40), 13), together[:, :13])


# Seeds in a tensor, whose numbers are made on its device

ANY_SEEDS = [0, 1, 7, -1, 2**63 - 1, -(2**63), 2**32, -(2**32), 0x299F31D0A4093822]


@pytest.mark.parametrize("stream", [NOISE, DRAW, 2**31, PIXELS])
def test_words_of_a_tensor_are_those_of_an_array(stream):
    found = random_words_on_device(torch.tensor(ANY_SEEDS), 4000, stream)
    assert found.dtype == torch.int64
    assert np.array_equal(found.numpy().astype(np.uint64), random_words(ANY_SEEDS, 4000, stream))
    in_place = random_words_on_device(torch.tensor(ANY_SEEDS), 4000, torch.tensor(stream))
    assert torch.equal(in_place, found)


def test_known_answer_of_a_tensor():
    expected = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]  # counter and key 0, see above
    assert random_words_on_device(torch.tensor([0]), 4, 0).tolist() == [expected]


@pytest.mark.parametrize("count", [1, 3, 4, 10, 14_700])
def test_coarse_noise_of_a_tensor_is_the_same_to_the_bit(count):
    assert torch.equal(coarse_normal(torch.tensor(ANY_SEEDS), count), coarse_normal(ANY_SEEDS, count))


@pytest.mark.parametrize("count", [1, 3, 4, 10, 100_000])
def test_noise_of_a_tensor_is_the_same_but_for_last_digits(count):
    found, expected = (standard_normal(seeds, count, 5) for seeds in (torch.tensor(ANY_SEEDS), ANY_SEEDS))
    assert found.shape == expected.shape and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=2**-23, atol=0)  # one unit in the last place
    assert (found != expected).sum() <= 1


@needs_cuda
def test_noise_made_on_a_gpu_is_that_of_the_cpu():
    seeds = torch.tensor(ANY_SEEDS, device="cuda")
    assert torch.equal(coarse_normal(seeds, 14_700).cpu(), coarse_normal(ANY_SEEDS, 14_700))
    found, expected = standard_normal(seeds, 100_000).cpu(), standard_normal(ANY_SEEDS, 100_000)
    torch.testing.assert_close(found, expected, rtol=2**-23, atol=0)
    assert (found != expected).sum() <= 1


def test_index_is_uniform_within_its_size():
    sizes = np.repeat([1, 7, 50_000], 7000)
    index = random_index(range(len(sizes)), sizes)
    assert (index[:7000] == 0).all()
    counts = np.bincount(index[7000:14_000], minlength=7)
    assert len(counts) == 7 and abs(counts - 1000).max() < 150
    assert index[14_000:].max() < 50_000
    assert abs(index[14_000:].mean() / 25_000 - 1) < 0.03


def test_draw_and_noise_of_a_seed_are_unrelated():
    index = random_index(range(5000), np.full(5000, 1000))
    z = standard_normal(range(5000), 4).numpy()
    assert max(abs(np.corrcoef(index, z[:, k])[0, 1]) for k in range(4)) < 0.06
