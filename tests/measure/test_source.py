"""The flood fill behind the masks: every way to it gives what a priority queue gives, also in mazes."""

from __future__ import annotations

import heapq
import itertools

import pytest
import torch

from galaxies.measure import source
from galaxies.measure.frame import smooth
from galaxies.measure.photometry import measure
from tests.conftest import render_galaxies

SIDE = 32


def flooded(marker, ceiling):
    """Flood from the highest pixel downwards, one pixel after the other.

    A pixel that leaves the queue has its final value, since none that is higher comes after it (Dijkstra's argument).
    """
    level, top = marker.minimum(ceiling).tolist(), ceiling.tolist()
    side, found = len(level), [[-float("inf")] * len(level) for _ in level]
    queue = [(-level[y][x], y, x) for y, x in itertools.product(range(side), repeat=2)]
    heapq.heapify(queue)
    seen = set()
    while queue:
        height, y, x = heapq.heappop(queue)
        if (y, x) in seen:
            continue
        seen.add((y, x))
        found[y][x] = -height
        for v, u in itertools.product((y - 1, y, y + 1), (x - 1, x, x + 1)):
            if 0 <= v < side and 0 <= u < side and (v, u) not in seen:
                heapq.heappush(queue, (-min(-height, top[v][u]), v, u))
    return torch.tensor(found, dtype=marker.dtype)


def walk(start, corners, falling=1e-3):
    """A ceiling with one open path, a pixel wide, that falls with every step; between are walls."""
    ceiling = torch.full((SIDE, SIDE), -torch.inf)
    y, x = start
    level = 1.0
    ceiling[y, x] = level
    for v, u in corners:
        while (y, x) != (v, u):
            y, x = y + (v > y) - (v < y), x + (u > x) - (u < x)
            level -= falling
            ceiling[y, x] = level
    return ceiling


def spiral():
    """From the middle to the border, in squares that grow by two pixels each."""
    y = x = SIDE // 2
    corners = []
    for turn in range(SIDE - 3):
        length = 2 * (turn // 2 + 1)
        dy, dx = ((0, 1), (1, 0), (0, -1), (-1, 0))[turn % 4]
        y, x = y + length * dy, x + length * dx
        if min(y, x) < 0 or max(y, x) >= SIDE:
            break
        corners.append((y, x))
    return walk((SIDE // 2, SIDE // 2), corners), (SIDE // 2, SIDE // 2)


def serpentine():
    """Along every second row, there and back, from the corner: 527 steps."""
    corners = []
    for row in range(0, SIDE, 2):
        there, back = (0, SIDE - 1) if row % 4 else (SIDE - 1, 0)
        corners += [(row, back), (row, there)] if row else [(0, SIDE - 1)]
    return walk((0, 0), corners), (0, 0)


def mountains(seed):
    """Smooth noise, of which half lies below the threshold; the marker is its highest pixel."""
    generator = torch.Generator().manual_seed(seed)
    noise = smooth(torch.randn(1, SIDE, SIDE, generator=generator), 1.0 / SIDE)[0]
    ceiling = torch.where(noise > noise.median(), noise, -torch.inf)
    return ceiling, divmod(ceiling.argmax().item(), SIDE)


def terraces(seed):
    """Noise of a few levels: every pixel has equals beside it."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 4, (SIDE, SIDE), generator=generator).float(), (SIDE // 2, SIDE // 2)


PLANES = [spiral(), serpentine(), *map(mountains, range(3)), *map(terraces, range(2))]
CEILING = torch.stack([ceiling for ceiling, _ in PLANES])
MARKER = torch.full_like(CEILING, -torch.inf)
for plane, (_, (row, column)) in enumerate(PLANES):
    MARKER[plane, row, column] = CEILING[plane, row, column]
FLOODED = torch.stack([flooded(*pair) for pair in zip(MARKER, CEILING, strict=True)])


def take_the_way(monkeypatch, way):
    """Let planes on a CPU be reconstructed by one of the ways, however many they are."""
    monkeypatch.setattr(source, "_POOLING", frozenset({"cpu"} if way == "pooling" else ()))
    monkeypatch.setattr(source, "_SWEPT_PIXELS", 0 if way == "sweeps" else 10**9)


@pytest.mark.parametrize("way", ["pooling", "passes", "sweeps"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_way_floods_as_a_priority_queue_does(way, dtype, monkeypatch):
    take_the_way(monkeypatch, way)
    found = source.reconstruct(MARKER.to(dtype), CEILING.to(dtype))
    assert found.dtype == dtype
    assert torch.equal(found, FLOODED.to(dtype))


def test_the_mazes_are_long_and_open_to_their_ends():
    # 28 sides of 2, 2, 4, 4, ... 28, 28 pixels; 16 rows and what joins them.
    assert torch.isfinite(FLOODED).sum((1, 2))[:2].tolist() == [1 + 2 * 14 * 15, 16 * 32 + 15]
    assert torch.equal(FLOODED[:2], CEILING[:2])
    assert (FLOODED < CEILING)[2:].flatten(1).any(1).all()  # and in the others something is cut off


@pytest.mark.parametrize("way", ["pooling", "passes", "sweeps"])
def test_masks_of_bytes(way, monkeypatch):
    take_the_way(monkeypatch, way)
    above = (CEILING > 0).to(torch.uint8)
    marker = torch.isfinite(MARKER).to(torch.uint8).minimum(above)
    expected = torch.stack([flooded(*pair) for pair in zip(marker, above, strict=True)])
    assert torch.equal(source.reconstruct(marker, above), expected)
    assert 0 < expected.sum() < above.sum()


def test_a_marker_above_the_ceiling_reaches_its_neighbours(monkeypatch):
    # A peak below the threshold, beside a pixel above it: nothing was found, but every way finds the same nothing.
    marker, ceiling = torch.full((2, 1, 8, 8), -torch.inf).unbind()
    marker[0, 4, 4], ceiling[0, 4, 5:7] = 1.0, torch.tensor([2.0, 0.5])
    expected = torch.full((1, 8, 8), -torch.inf)
    expected[0, 4, 5:7] = torch.tensor([1.0, 0.5])
    for way in ("pooling", "passes", "sweeps"):
        take_the_way(monkeypatch, way)
        assert torch.equal(source.reconstruct(marker, ceiling), expected)


@pytest.mark.parametrize("way", ["passes", "sweeps"])
def test_nothing_to_flood(way, monkeypatch):
    take_the_way(monkeypatch, way)
    nothing = torch.full((2, 16, 16), -torch.inf)
    assert torch.equal(source.reconstruct(nothing, nothing), nothing)


@pytest.mark.parametrize("way", ["passes", "sweeps"])
def test_broken_pixels_end_too(way, monkeypatch):
    take_the_way(monkeypatch, way)
    source.reconstruct(torch.full((1, 8, 8), torch.nan), torch.full((1, 8, 8), torch.nan))


def test_frames_are_swept_in_parts(monkeypatch):
    take_the_way(monkeypatch, "sweeps")
    monkeypatch.setattr(source, "_CHUNK_PIXELS", 3 * SIDE**2)
    assert torch.equal(source.reconstruct(MARKER, CEILING), FLOODED)


def test_a_recorded_step_makes_as_many_passes_as_galaxies_need(monkeypatch):
    made = []
    dilate = source.dilate
    monkeypatch.setattr(source, "_is_recorded", lambda planes: True)
    monkeypatch.setattr(source, "_POOLING", frozenset({"cpu"}))
    monkeypatch.setattr(source, "dilate", lambda planes: made.append(1) or dilate(planes))
    images = torch.from_numpy(render_galaxies(6)[0]).float() / 255
    recorded = measure(images)
    assert len(made) == 1.25 * images.shape[-1]
    monkeypatch.undo()
    for found, right in zip(recorded, measure(images), strict=True):
        assert torch.equal(found, right)
