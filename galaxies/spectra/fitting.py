"""The spectrum of old and young stars behind dust that has the magnitudes of a galaxy: a template, no observation.

Three numbers are fitted, the light of either stars and the reddening of the dust before both. Where these alone miss a
magnitude, the spectrum is multiplied by a correction that runs smoothly from band to band, as templates of supernovae
are brought to observed colors (Hsiao et al. 2007, ApJ 663, 1187, section 4): lines and breaks stay where they are. It
is as large as the magnitudes ask for, and told: of much of it the galaxy has colors that no stars have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from config_physics import AB_ZERO_POINT
from galaxies.spectra.templates import OLD, RANGE, YOUNG, dust_curve, flux_density

CLOSE = 0.05  # magnitudes up to which a spectrum has a galaxy's
FAR_CORRECTED = 0.5  # magnitudes of change from which on a spectrum is no longer one of stars behind dust
FEWEST_BANDS = 2
_POINTS = 3400  # of a spectrum, a thousandth of a wavelength apart
_MOST_DUST, _DUST_STEPS = 0.8, 161  # E(B - V), magnitudes
_ROUNDS, _ENOUGH = 300, 0.002  # of the correction, and magnitudes from which on it is left alone


@dataclass(frozen=True)
class FittedSpectrum:
    """A spectrum as seen from here.

    Attributes
    ----------
    wavelength_nm, flux_njy : ndarray, (W,)
        Observed wavelengths, rising, and flux densities a unit of frequency, nanojansky.
    redshift : float
    young : float
        Part of young stars in the light in r at rest, before the dust.
    reddening : float
        E(B - V) of the dust, magnitudes.
    correction : float
        By how much the templates were changed where that is most, magnitudes; 0 where they fit.
    residuals : ndarray, (B,)
        Synthetic less wanted magnitudes, NaN where there is no magnitude or the templates do not reach.
    """

    wavelength_nm: np.ndarray
    flux_njy: np.ndarray
    redshift: float
    young: float
    reddening: float
    correction: float
    residuals: np.ndarray

    @property
    def worst(self) -> float:
        """The largest residual, magnitudes."""
        return float(np.nanmax(np.abs(self.residuals)))


def reached(edges_nm: Sequence[tuple[float, float]], redshift: float) -> np.ndarray:
    """Return in which bands (B,) the templates tell all light at a redshift."""
    low, high = (end * (1 + redshift) for end in RANGE)
    return np.array([low <= first and last <= high for first, last in edges_nm])


def fit_spectrum(magnitudes: np.ndarray, edges_nm: Sequence[tuple[float, float]], redshift: float) -> FittedSpectrum:
    """Find the spectrum that has the magnitudes of a galaxy.

    Parameters
    ----------
    magnitudes : ndarray, (B,)
        AB, NaN where unknown; at least `FEWEST_BANDS` of them within reach of the templates.
    edges_nm : sequence of (float, float), B
        Where each band begins and ends; it is open in between, and sees the mean of the flux density over the
        logarithm of wavelength (Hogg et al. 2002, eq. 5).
    redshift : float
        0 or more.

    Raises
    ------
    ValueError
        If fewer magnitudes are known, or the redshift is none.
    """
    if not (np.isfinite(redshift) and redshift >= 0):
        raise ValueError(f"a redshift of {redshift}")
    known = np.isfinite(magnitudes) & reached(edges_nm, redshift)
    if known.sum() < FEWEST_BANDS:
        raise ValueError(f"{int(known.sum())} magnitudes, where {FEWEST_BANDS} are needed")
    rest, old, young, extinction = _templates()
    wavelength = rest * (1 + redshift)
    edges = np.array(edges_nm, dtype=np.float64)
    wanted = 10 ** (0.4 * (AB_ZERO_POINT - magnitudes[known]))
    reddening = np.linspace(0, _MOST_DUST, _DUST_STEPS)
    dimming = 10 ** (-0.4 * reddening[:, None] * extinction)  # (D, W)
    seen = [_through(wavelength, dimming * part, edges[known]) / wanted for part in (old, young)]
    light = _shares(*seen)  # (2, D)
    model = light[0][:, None] * seen[0] + light[1][:, None] * seen[1]
    missed = np.square(2.5 * np.log10(np.maximum(model, 1e-30))).sum(1)
    best = int(missed.argmin())
    flux = dimming[best] * (light[0, best] * old + light[1, best] * young)
    correction = np.zeros_like(wavelength)
    places, order = np.log(edges[known].mean(1)), np.argsort(edges[known].mean(1))
    offsets = np.zeros(len(wanted))
    if (np.abs(_offsets(wavelength, flux, edges[known], wanted)) > CLOSE).any():
        for _ in range(_ROUNDS):
            left = _offsets(wavelength, flux * 10 ** (-0.4 * correction), edges[known], wanted)
            if (np.abs(left) <= _ENOUGH).all():
                break
            offsets = offsets - left
            correction = _between(places[order], offsets[order], np.log(wavelength))
        flux = flux * 10 ** (-0.4 * correction)
    residuals = np.full(len(magnitudes), np.nan)
    residuals[known] = _offsets(wavelength, flux, edges[known], wanted)
    total = light[:, best].sum()
    return FittedSpectrum(
        wavelength,
        flux,
        float(redshift),
        float(light[1, best] / total),
        float(reddening[best]),
        float(np.abs(correction).max()),
        residuals,
    )


@cache
def _templates() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return wavelengths at rest, old and young stars' flux densities over r's, and extinction for E(B - V) = 1."""
    rest = np.geomspace(*RANGE, _POINTS)
    return rest, flux_density(OLD, rest), flux_density(YOUNG, rest), dust_curve(rest)


def _through(wavelength: np.ndarray, flux: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return means of flux densities (..., W) over the logarithm of wavelength between edges (B, 2): (..., B)."""
    place, ends = np.log(wavelength), np.log(edges)
    steps = np.diff(place) * (flux[..., 1:] + flux[..., :-1]) / 2
    total = np.concatenate([np.zeros((*flux.shape[:-1], 1)), steps.cumsum(-1)], -1)
    at = np.searchsorted(place, ends).clip(1, len(place) - 1)  # (B, 2)
    part = (ends - place[at - 1]) / (place[at] - place[at - 1])
    inside = total[..., at - 1] + part * (total[..., at] - total[..., at - 1])
    return (inside[..., 1] - inside[..., 0]) / (ends[:, 1] - ends[:, 0])


def _between(places: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Run through values (B,) at rising places without a kink, nor beyond any two neighbours; constant outside.

    References
    ----------
    Fritsch & Carlson 1980, SIAM J. Numer. Anal. 17, 238: monotone cubic pieces.
    """
    from scipy.interpolate import PchipInterpolator

    # A flat piece at either end has it leave the outermost values without a slope.
    places, values = np.pad(places, 1, "reflect", reflect_type="odd"), np.pad(values, 1, "edge")
    return PchipInterpolator(places, values)(wanted.clip(places[0], places[-1]))


def _offsets(wavelength: np.ndarray, flux: np.ndarray, edges: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return synthetic less wanted magnitudes."""
    return -2.5 * np.log10(_through(wavelength, flux, edges) / wanted)


def _shares(old: np.ndarray, young: np.ndarray) -> np.ndarray:
    """Return the light (2, D), none negative, for which light @ (old, young), (D, B) each, is nearest to 1."""
    oo, yy, oy = (old * old).sum(1), (young * young).sum(1), (old * young).sum(1)
    o, y = old.sum(1), young.sum(1)
    determinant = np.maximum(oo * yy - oy**2, 1e-12 * oo * yy)
    both = np.stack([(o * yy - y * oy) / determinant, (y * oo - o * oy) / determinant])
    alone = np.stack([o / oo, np.zeros_like(o)]), np.stack([np.zeros_like(o), y / yy])
    missed = [np.square(part[0][:, None] * old + part[1][:, None] * young - 1).sum(1) for part in alone]
    single = np.where(missed[0] <= missed[1], alone[0], alone[1])
    return np.where((both >= 0).all(0), both, single)
