"""Shapes and structures of mock galaxies, class by class: what does not depend on how far away they are.

The ranges were chosen to match real galaxies of the same class (`studies/realism.py`). Lengths are in half-light
radii or in scale lengths of the disc, angles in radians; `light.py` shows what each number does.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from galaxies.mock_survey.galaxy_table import EdgeOnDisc, Pair, SpiralDisc

NUM_KNOTS = 40
NUM_WAVES = 6
DISC_THICKNESS = 0.15  # axis ratio of a disc from the side, in Hubble's relation
_EDGE_ON_RATIO = math.pi / 6  # root mean square height over length of K1 sech^2 discs, for z0 = h


def normal_within(
    rng: np.random.Generator, mean: float, sigma: float, low: float, high: float, shape: int | tuple[int, ...]
) -> np.ndarray:
    """Draw from a normal distribution cut off at both ends, without rejection: tails fold to uniform numbers."""
    values = rng.normal(mean, sigma, shape)
    spare = rng.uniform(low, high, shape)
    return np.where((values < low) | (values > high), spare, values)


class Shape(NamedTuple):
    """What is drawn of a class alone (`classes.py` says by which function); the columns are those of `Structure`."""

    bulge_n: np.ndarray
    bulge_fraction: np.ndarray
    axis_ratio: np.ndarray
    old: np.ndarray | None = None  # nobody is, if left out
    spiral: SpiralDisc[np.ndarray] | None = None
    edge_on: EdgeOnDisc[np.ndarray] | None = None
    pair: Pair[np.ndarray] | None = None
    other: Any = None
    inclination: np.ndarray | None = None  # radians; no discs, if left out
    bulge_growth: float = 1.0  # of the bulge over those of other classes


def inclination_of(axis_ratio: np.ndarray) -> np.ndarray:
    """Return the inclination in radians, 0 face-on, of discs as thick as `DISC_THICKNESS`, by their b/a.

    cos^2 i = (q^2 - q0^2) / (1 - q0^2): Hubble 1926, ApJ 64, 321. A flatter disc than that is edge-on.
    """
    squared = (axis_ratio**2 - DISC_THICKNESS**2) / (1 - DISC_THICKNESS**2)
    return np.arccos(np.sqrt(squared.clip(0, 1)))


def elliptical_shape(count: int, rng: np.random.Generator) -> Shape:
    """Draw a cusp in a smooth body, as deep images resolve ellipticals (Huang et al. 2013).

    Galaxy Zoo's smooth class also holds lenticulars and small galaxies without features, some of them blue.
    """
    return Shape(
        bulge_n=rng.uniform(2.5, 5.0, count),
        axis_ratio=normal_within(rng, 0.66, 0.17, 0.36, 1.0, count),
        bulge_fraction=rng.uniform(0.2, 0.75, count),
        old=np.where(rng.random(count) < 0.3, 0.0, 1.0),
        bulge_growth=1.6,
    )


def edge_on_shape(count: int, rng: np.random.Generator) -> Shape:
    """Draw discs from the side, and some that show a little of their face: volunteers call those edge-on too."""
    bulge_n = rng.uniform(1.0, 3.0, count)
    bulge = rng.beta(1.2, 2.2, count)
    thickness = rng.uniform(0.18, 0.52, count)  # z0 / h
    inclined = (rng.random(count) < 0.5).astype(np.float64)  # an ellipse
    axis_ratio = np.where(inclined > 0, rng.uniform(0.23, 0.62, count), _EDGE_ON_RATIO * thickness)
    return Shape(
        bulge_n=bulge_n,
        axis_ratio=axis_ratio,
        inclination=np.where(inclined > 0, inclination_of(axis_ratio), math.pi / 2),
        bulge_fraction=np.where(inclined > 0, 0.07 + 0.3 * bulge, 0.01 + 0.11 * bulge),
        edge_on=EdgeOnDisc(
            thickness=thickness,
            inclined=inclined,
            dust_depth=np.where(rng.random(count) < 0.6, rng.uniform(0.3, 2.5, count), 0.0),
            dust_offset=rng.normal(0, 0.15, count),  # of the lane from the middle, z0
            lopsidedness=rng.normal(0, 0.07, count),
        ),
    )


def spiral_shape(count: int, rng: np.random.Generator) -> Shape:
    """Draw inclined discs with one to four arms, fine structure and knots, and bars in some."""
    bulge_n = rng.uniform(1.0, 2.5, count)
    bulge_fraction = 0.02 + 0.43 * rng.beta(1.2, 3.2, count)
    cos_i = rng.uniform(0.38, 1.0, count)
    arms = rng.choice([1, 2, 3, 4], count, p=[0.05, 0.65, 0.18, 0.12]).astype(np.float64)
    barred = rng.random(count) < 0.4
    knot_radius = rng.gamma(2.6, 0.85, (count, NUM_KNOTS))
    return Shape(
        bulge_n=bulge_n,
        bulge_fraction=bulge_fraction,
        axis_ratio=np.sqrt(DISC_THICKNESS**2 + (1 - DISC_THICKNESS**2) * cos_i**2),  # Hubble (1926)
        inclination=np.arccos(cos_i),
        spiral=SpiralDisc(
            num_arms=arms,
            pitch=np.radians(rng.uniform(9, 26, count)),
            winding=rng.choice([-1.0, 1.0], count),
            arm_strength=0.74 * rng.beta(2.3, 1.8, count),
            arm_sharpness=rng.uniform(1.0, 4.0, count),
            arm_phase=rng.uniform(0, 2 * math.pi, count),
            hole=rng.uniform(0.2, 0.95, count),  # how much light the disc's middle lacks
            arm_start=rng.uniform(0.35, 0.9, count),
            arm_asymmetry=rng.uniform(0, 0.35, count),
            waves=np.stack(
                [
                    rng.integers(2, 9, (count, NUM_WAVES)),  # number of arms of each wave
                    rng.uniform(2.0, 9.0, (count, NUM_WAVES)),  # its radial frequency in log radius
                    rng.uniform(0, 2 * math.pi, (count, NUM_WAVES)),
                    rng.rayleigh(1.0, (count, NUM_WAVES)),
                ],
                -1,
            ),
            wave_strength=rng.uniform(0.02, 0.12, count),
            bar_fraction=np.where(barred, rng.uniform(0.06, 0.22, count), 0.0),
            bar_size=rng.uniform(0.5, 1.0, count),  # half-light radius along the bar, scale lengths
            bar_axis_ratio=rng.uniform(0.25, 0.45, count),
            bar_angle=rng.uniform(0, math.pi, count),
            knot_radius=knot_radius,
            knot_angle=rng.normal(0, 0.35, (count, NUM_KNOTS)),  # from the ridge of an arm, radians of its phase
            knot_arm=np.floor(rng.random((count, NUM_KNOTS)) * arms[:, None]),
            knot_light=rng.pareto(1.8, (count, NUM_KNOTS)).clip(max=15) + 0.2,
            knot_fraction=rng.uniform(0.003, 0.06, count),
        ),
    )


def merger_shape(count: int, rng: np.random.Generator) -> Shape:
    """Draw pairs: gas-rich discs that `encounter.py` pulls apart, or two spheroids in a common envelope."""
    dry = (rng.random(count) < 0.45).astype(np.float64)
    axis_ratio = normal_within(rng, 0.75, 0.15, 0.4, 1.0, (count, 2))
    angles = rng.normal(size=(count, 4))
    return Shape(
        old=dry,
        bulge_n=np.where(dry[:, None] > 0, rng.uniform(1.0, 2.4, (count, 2)), rng.uniform(1.0, 2.5, (count, 2))),
        bulge_fraction=0.05 + 0.4 * rng.beta(1.5, 2.0, count),
        axis_ratio=axis_ratio[:, 0],
        pair=Pair(
            dry=dry,
            spheroid_axis_ratio=axis_ratio,
            spheroid_angle=rng.uniform(0, math.pi, (count, 2)),
            separation=rng.uniform(0.6, 2.4, count),  # of dry pairs, half-light radii
            direction=rng.uniform(0, 2 * math.pi, count),
            light_ratio=rng.uniform(0.25, 1.0, count),
            mass_ratio=rng.uniform(0.3, 1.0, count),
            pericentre=rng.uniform(1.2, 4.0, count),
            speed=rng.uniform(0.55, 0.8, count),
            time_after=rng.uniform(6.0, 55.0, count),
            disc_tilt=np.abs(rng.normal(0, 0.8, (count, 2))),
            disc_node=rng.uniform(0, 2 * math.pi, (count, 2)),
            view=_rotations(angles),
            clumpiness=rng.uniform(0.2, 2.0, count),  # of the particles' light
        ),
    )


def _rotations(quaternions: np.ndarray) -> np.ndarray:
    """Return uniform random rotations (N, 3, 3) from four normal numbers each (Shoemake 1992)."""
    w, x, y, z = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], 1)
