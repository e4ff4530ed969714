"""What the votes of Galaxy Zoo say of arms, bars and bulges, in the quantities that the mock survey knows exactly.

Votes say how many people saw something, and an attribute is how much of it there is. Each is therefore the value that
is expected of a galaxy with these votes: the mean over the answers, each with what it stands for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

FEATURES = "t01_smooth_or_features_a02_features_or_disk"
FACE_ON = "t02_edgeon_a05_no"
BAR = "t03_bar_a06_bar"
SPIRAL = "t04_spiral_a08_spiral"
NO_BULGE, JUST_NOTICEABLE, OBVIOUS, DOMINANT = (
    f"t05_bulge_prominence_{answer}"
    for answer in ("a10_no_bulge", "a11_just_noticeable", "a12_obvious", "a13_dominant")
)
MODERATE = "moderate"  # of later campaigns alone: between just noticeable and obvious
ODD = "t06_odd_a14_yes"
RING = "t08_odd_feature_a19_ring"
# Answers by the number of arms that they stand for; more than four are most often five or six.
ARMS = {
    1: "t11_arms_number_a31_1",
    2: "t11_arms_number_a32_2",
    3: "t11_arms_number_a33_3",
    4: "t11_arms_number_a34_4",
    5: "t11_arms_number_a36_more_than_4",
}
UNTOLD = "t11_arms_number_a37_cant_tell"
ANSWERS = (
    *(FEATURES, FACE_ON, BAR, SPIRAL, NO_BULGE, JUST_NOTICEABLE, MODERATE, OBVIOUS, DOMINANT, ODD, RING),
    *ARMS.values(),
    UNTOLD,
)
NAMES = ("arm_count", "bar", "bulge", "ring", "odd")

# Fractions above which enough people came to the next question (Willett et al. 2013, Table 3, for at least 20 votes).
_FEATURES_GATE, _FACE_ON_GATE, _SPIRAL_GATE = 0.43, 0.715, 0.619
_MOST_UNTOLD = 0.5  # of those who were asked how many arms there are
# Of the disc's light in the bar, where there is one: a tenth of all light (Gadotti 2011, MNRAS 415, 3308), of which the
# disc with its bar has three quarters; and the mean of the mock survey's.
_BAR_OF_BARRED = 0.14
_TYPES = (-5.0, 10.0)  # of de Vaucouleurs, ellipticals to irregulars


def structure_attributes(votes: pd.DataFrame, morphologies: Sequence[str | None]) -> pd.DataFrame:
    """Compute the attributes of structure that votes tell.

    Parameters
    ----------
    votes : DataFrame, N rows
        Fractions of those who reached a question, named as `ANSWERS`, as they were given: debiased ones say what would
        be seen from nearby, which the picture need not show. What is not there is unknown.
    morphologies : sequence of str or None, N
        Classes. As in the mock survey arms, bar and bulge are those of spirals, and unknown of other galaxies.

    Returns
    -------
    DataFrame of float64, in the rows of `votes`
        arm_count
            Expected number: the mean of the numbers by their votes, 1 to 5, without those who could not tell; known
            where most people told one.
        bar
            Expected part of the disc's light in its bar, 0 to 0.14: the fraction that saw a bar times what bars have.
        bulge
            Part of the galaxy's light in its bulge, 0 to 1, that is usual for its type. Votes for the bulge tell the
            type (Willett et al. 2013, eq. 19, on RC3 types), and the type tells the part, in B, where it is somewhat
            smaller than in r (Simien & de Vaucouleurs 1986, ApJ 302, 564, eq. 4).
        ring, odd
            Fraction of all people who saw a ring, or anything odd, 0 to 1, of any class.
        NaN where too few people were asked (Willett et al. 2013, Table 3), or the table has no such answers.
    """
    votes = votes.reindex(columns=list(ANSWERS)).astype(np.float64)
    spirals = pd.Series(np.array([name == "spiral" for name in morphologies], dtype=bool), index=votes.index)
    disc = spirals & (votes[FEATURES] > _FEATURES_GATE) & (votes[FACE_ON] > _FACE_ON_GATE)
    numbers = votes[list(ARMS.values())].fillna(0)
    told = numbers.sum(axis=1)
    untold = votes[UNTOLD].fillna(0)
    counted = disc & (votes[SPIRAL] > _SPIRAL_GATE) & (told > 0) & (untold <= _MOST_UNTOLD * (told + untold))
    known = {
        "arm_count": (numbers @ list(ARMS) / told.where(told > 0)).where(counted),
        "bar": (_BAR_OF_BARRED * votes[BAR]).where(disc),
        "bulge": _bulge_of_type(_type(votes)).where(disc),
        "ring": votes[ODD] * votes[RING],
        "odd": votes[ODD],
    }
    return pd.DataFrame({name: known[name] for name in NAMES}, index=votes.index, dtype=np.float64)


def told(galaxies: pd.DataFrame) -> str:
    """Say in a sentence of how many galaxies the votes tell each attribute of structure; empty if of none."""
    counts = {name: int(galaxies[name].notna().sum()) for name in NAMES}
    known = ", ".join(f"{name} of {count}" for name, count in counts.items() if count)
    return f"votes tell {known} of these galaxies" if known else ""


def _type(votes: pd.DataFrame) -> pd.Series:
    """Return the type of de Vaucouleurs by the votes for the bulge (Willett et al. 2013, eq. 19)."""
    moderate = votes[MODERATE].fillna(0)
    none, dominant = votes[NO_BULGE], votes[DOMINANT]
    obvious = votes[OBVIOUS] + moderate / 2
    total = none + votes[JUST_NOTICEABLE].fillna(0) + moderate / 2 + obvious + dominant
    total = total.where(total > 0)
    return (4.63 + (4.17 * none - 2.27 * obvious - 8.38 * dominant) / total).clip(*_TYPES)


def _bulge_of_type(kind: pd.Series) -> pd.Series:
    """Return the part of the light in the bulge of a type (Simien & de Vaucouleurs 1986, eq. 4)."""
    tau = kind + 5
    return 10 ** (-0.4 * (0.324 * tau - 0.054 * tau**2 + 0.0047 * tau**3))
