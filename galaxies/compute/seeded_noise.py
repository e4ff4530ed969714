"""Random numbers that are a function of a seed: Philox4x32-10, for many seeds at once.

A counter-based generator has no state to set up: number n of a seed is a hash of the seed and n. Preparing a
`torch.Generator` for each image takes longer than a GPU needs to draw it; here thousands of seeds share each array
operation. Seeds in an array get their numbers on the CPU, from numpy; seeds in a tensor get them where they are, by the
same whole-number arithmetic, so that every device starts from the same noise. Numbers from a table are the same to the
bit. Where a logarithm and a cosine are computed, in float64, the last digit of the float32 result hardly ever differs:
once in some hundred million numbers, if those functions differ in their own last digit. (MPS has no float64: it is sent
what the CPU made.)

References
----------
Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", SC'11, doi:10.1145/2063384.2063405.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

# Streams of one seed, which share no numbers: the last word of the counter.
NOISE = 0  # a generator's input
DRAW = 1  # the choice of a real galaxy
STEPS = 2  # this and the following: fresh noise of a solver's steps
PIXELS = 2**32 - 1  # grain of an image's pixels
SKY = 2**32 - 2  # noise of a survey's pixels
JOINT = 2**31  # this and the following: class and attributes that are drawn together

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)  # golden ratio and sqrt(3) - 1, as fractions of 2^32
_ROUNDS = 10
_LOW_WORD, _WORD_BITS = np.uint64(0xFFFFFFFF), np.uint64(32)
_BLOCK = 1024  # seeds at a time, so that the arrays stay in the processor's cache
_TABLE_BLOCK = 16  # the same where each seed has thousands of numbers
_HALF_WORD, _HALF_BITS = np.uint64(0xFFFF), np.uint64(16)

Seeds = Sequence[int] | np.ndarray | Tensor


def philox4x32(counter: Sequence[np.ndarray], key: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Hash counters under keys.

    Parameters
    ----------
    counter : sequence of 4 ndarray, uint64
        32-bit words, the first one first; of shapes that broadcast.
    key : sequence of 2 ndarray, uint64
        32-bit words.

    Returns
    -------
    list of 4 ndarray, uint64
        32-bit words, uniform in 0 .. 2^32 - 1.
    """
    words, (key_0, key_1) = list(counter), key
    for _ in range(_ROUNDS):
        # The halves of the 64-bit products change places; the high ones are mixed with the other words and the key.
        product_0, product_1 = _MULTIPLIERS[0] * words[0], _MULTIPLIERS[1] * words[2]
        words = [
            product_1 >> _WORD_BITS ^ words[1] ^ key_0,
            product_1 & _LOW_WORD,
            product_0 >> _WORD_BITS ^ words[3] ^ key_1,
            product_0 & _LOW_WORD,
        ]
        key_0, key_1 = key_0 + _KEY_STEPS[0] & _LOW_WORD, key_1 + _KEY_STEPS[1] & _LOW_WORD
    return words


def random_words(seeds: Sequence[int] | np.ndarray, count: int, stream: int) -> np.ndarray:
    """Return the first words of a stream of each seed.

    Parameters
    ----------
    seeds : sequence of int or ndarray, N
        -2^63 to 2^63 - 1; the low and the high word are the key.
    count : int
        Multiple of 4.
    stream : int

    Returns
    -------
    ndarray, (N, count), uint64
        Uniform in 0 .. 2^32 - 1.
    """
    keys = np.asarray(seeds, np.int64).view(np.uint64)[:, None]  # (N, 1)
    blocks = np.arange(count // 4, dtype=np.uint64)[None]  # (1, count / 4)
    zero = np.zeros((1, 1), np.uint64)
    words = philox4x32([blocks, zero, zero, zero + np.uint64(stream)], [keys & _LOW_WORD, keys >> _WORD_BITS])
    return np.stack(words, -1).reshape(len(keys), count)


def random_words_on_device(seeds: Tensor, count: int, stream: int | Tensor) -> Tensor:
    """Return the words of `random_words`, int64, on the device of the seeds (N,), int64.

    Tensors have no unsigned words of their own: a product of 64 bits may come out negative, with the same bits. What
    happens to two words of a block alike happens to both in one operation, since a GPU takes as long to begin one as
    to do it. `stream` may be a tensor (), int64, which a CUDA graph reads anew at each replay.
    """
    low, bits = int(_LOW_WORD), int(_WORD_BITS)
    blocks = torch.arange(count // 4, device=seeds.device)[None]  # (1, count / 4)
    # Words 0 and 2 of the counter, and 1 and 3: (2, N or 1, count / 4).
    even, odd = torch.stack([blocks, torch.zeros_like(blocks)]), torch.zeros_like(blocks).repeat(2, 1, 1)
    odd[1] += stream
    multipliers, steps = (_column(pair, seeds.device) for pair in (_MULTIPLIERS, _KEY_STEPS))
    key = torch.stack([seeds & low, seeds >> bits & low])[:, :, None]  # (2, N, 1)
    for _ in range(_ROUNDS):
        products = (multipliers * even).flip(0)
        even, odd = (products >> bits ^ odd ^ key) & low, products & low
        key = key + steps  # its carry is cut off with the sign of the products
    return torch.stack([even[0], odd[0], even[1], odd[1]], -1).flatten(1)


@cache
def _column(values: tuple[np.uint64, np.uint64], device: torch.device) -> Tensor:
    """Return two words as a tensor (2, 1, 1), int64, which stays on the device: a copy would wait for it each time."""
    with torch.inference_mode(False):
        return torch.tensor([int(value) for value in values]).to(device)[:, None, None]


def standard_normal(seeds: Seeds, count: int, stream: int | Tensor = NOISE) -> Tensor:
    """Return standard normal numbers of a stream of each seed.

    Two words make two numbers (Box & Muller 1958). They are computed in float64 and rounded once at the end, so that
    the last digits of a platform's logarithm and cosine hardly ever show.

    Parameters
    ----------
    seeds : sequence of int or ndarray, N, or Tensor, (N,), int64
    count : int
    stream : int
        With seeds in a tensor also a tensor (), int64, on their device.

    Returns
    -------
    Tensor, (N, count), float32, on the CPU, or on the device of the tensor of seeds
        Within ± 6.8.
    """
    if isinstance(seeds, Tensor):
        return _standard_normal_on_device(seeds, count, stream)
    assert isinstance(stream, int), "seeds on the CPU have a stream of a plain number"
    seeds = np.asarray(seeds, np.int64)
    normal = np.empty((len(seeds), -(-count // 4) * 4), np.float32)
    for start in range(0, len(seeds), _BLOCK):
        rows = slice(start, start + _BLOCK)
        words = random_words(seeds[rows], normal.shape[1], stream)
        # Half a step above 0 keeps the logarithm finite.
        radius = np.sqrt(-2.0 * np.log((words[:, 0::2] + 0.5) / 2.0**32))
        angle = words[:, 1::2] * (2 * np.pi / 2.0**32)
        normal[rows, 0::2] = radius * np.cos(angle)
        normal[rows, 1::2] = radius * np.sin(angle)
    return torch.from_numpy(normal[:, :count].copy())


def _standard_normal_on_device(seeds: Tensor, count: int, stream: int | Tensor) -> Tensor:
    words = random_words_on_device(seeds, -(-count // 4) * 4, stream).double()
    radius = (-2.0 * ((words[:, 0::2] + 0.5) / 2.0**32).log()).sqrt()
    angle = words[:, 1::2] * (2 * np.pi / 2.0**32)
    return (torch.stack([angle.cos(), angle.sin()], -1) * radius[..., None]).float().flatten(1)[:, :count]


def coarse_normal(seeds: Seeds, count: int, stream: int = PIXELS) -> Tensor:
    """Return numbers like `standard_normal`'s, but of 65,536 different values: for noise that 8-bit pixels show.

    Each half of a word picks a quantile of the normal distribution from a table, which takes a sixth of the time. The
    numbers lie within ± 4.33.
    """
    size = -(-count // 8) * 8
    if isinstance(seeds, Tensor):
        whole = random_words_on_device(seeds, size // 2, stream)
        halves = torch.stack([whole & int(_HALF_WORD), whole >> int(_HALF_BITS)], -1).flatten(1)
        return _quantiles_on(seeds.device)[halves[:, :count]]
    seeds = np.asarray(seeds, np.int64)
    normal = np.empty((len(seeds), size), np.float32)
    for start in range(0, len(seeds), _TABLE_BLOCK):
        rows = slice(start, start + _TABLE_BLOCK)
        words = random_words(seeds[rows], size // 2, stream)
        normal[rows, 0::2] = _quantiles()[words & _HALF_WORD]
        normal[rows, 1::2] = _quantiles()[words >> _HALF_BITS]
    return torch.from_numpy(normal)[:, :count]


@cache
def _quantiles() -> np.ndarray:
    """Return the normal distribution's 65,536 quantiles in the middle of equal parts, float32."""
    return torch.special.ndtri((torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16).float().numpy()


@cache
def _quantiles_on(device: torch.device) -> Tensor:
    """Return `_quantiles` as a tensor that stays on a device: a CUDA graph reads it where it was."""
    with torch.inference_mode(False):  # a kept tensor may serve where gradients are computed
        return torch.from_numpy(_quantiles()).to(device)


def random_index(seeds: Sequence[int] | np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return one whole number of each seed's stream `DRAW`, uniform in 0 .. size - 1.

    Parameters
    ----------
    seeds : sequence of int or ndarray, N
    sizes : ndarray, (N,), int64
        1 to 2^31; the numbers' odds differ by at most size / 2^32.

    Returns
    -------
    ndarray, (N,), int64
    """
    words = random_words(seeds, 4, DRAW)[:, 0]
    return (words * sizes.astype(np.uint64) >> _WORD_BITS).astype(np.int64)
