"""Generated against real galaxies by what people see in them: arms, second nuclei, outlines."""

from __future__ import annotations

import numpy as np

from galaxies.measure.arms import VISIBLE_ARMS
from galaxies.measure.mergers import VISIBLE_NUCLEUS
from galaxies.measure.statistics_table import MORPHOLOGY_STATISTICS, of_visible_arms
from galaxies.validation.distances import accuracy_interval, compare_values
from galaxies.validation.report.cells import LeftOut, Share, cell_of, read
from galaxies.validation.report.realism import ARMS, NUCLEUS, Morphology, Seen, ValuesCompared

# {feature: the statistic that shows it, and from which value on it is visible}
FEATURES = {ARMS: ("arm_strength", VISIBLE_ARMS), NUCLEUS: ("second_nucleus", VISIBLE_NUCLEUS)}
_LEAST = 10  # galaxies, of which a share is given


def of_visible(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the statistics of morphology (N,) as they are compared.

    The number of arms and their pitch, without the sense of winding, are those of visible arms and NaN elsewhere.
    """
    shown = of_visible_arms({statistic.name: values[statistic.name] for statistic in MORPHOLOGY_STATISTICS})
    return shown | {"pitch": np.abs(shown["pitch"])}


def compare_morphology(
    generated: dict[str, np.ndarray],
    real: dict[str, np.ndarray],
    groups: dict[str, tuple[np.ndarray, np.ndarray]],
    seed: int,
) -> Morphology:
    """Compare what people see in every group.

    Parameters
    ----------
    generated, real : dict of str to ndarray, (N,) and (M,)
        `MORPHOLOGY_STATISTICS`, NaN where no galaxy was found.
    groups : dict
        The generated and the real rows of each.
    seed : int

    Returns
    -------
    Morphology
        `table`, the distributions as in `comparison.compare_statistics`; `seen`, the shares of galaxies with visible
        arms and with a visible second nucleus, of those in which a galaxy was found.
    """
    one, other = of_visible(generated), of_visible(real)
    table: dict[str, dict[str, ValuesCompared | LeftOut]] = {
        name: {
            group: cell_of(ValuesCompared, compare_values(one[name][rows[0]], other[name][rows[1]], seed))
            for group, rows in groups.items()
        }
        for name in one
    }
    seen: dict[str, dict[str, Seen | LeftOut]] = {
        feature: {group: _seen(one[name][rows[0]], other[name][rows[1]], limit, seed) for group, rows in groups.items()}
        for feature, (name, limit) in FEATURES.items()
    }
    return Morphology(table, seen)


def _seen(generated: np.ndarray, real: np.ndarray, limit: float, seed: int) -> Seen | LeftOut:
    """Compare the shares above a limit; the difference's interval is that of two independent samples."""
    generated, real = (values[np.isfinite(values)] for values in (generated, real))
    if min(len(generated), len(real)) < _LEAST:
        return LeftOut(f"needs {_LEAST} galaxies of either set, has {len(real)} and {len(generated)}")
    made, true = (read(Share, accuracy_interval(values > limit, seed)) for values in (generated, real))
    error = np.sqrt(sum(share.value * (1 - share.value) / share.images for share in (made, true)))
    difference = made.value - true.value
    return Seen(made, true, difference, (float(difference - 1.96 * error), float(difference + 1.96 * error)))
