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
    standard_normal,
)


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
