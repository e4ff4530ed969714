"""What volunteers would say about mock galaxies: votes through the decision tree of Galaxy Zoo 2.

A galaxy's class and structure give the probability of each answer; simulated people then go through the questions
as real ones do (Willett et al. 2013, Fig. 1 and Table 2), so that fractions are conditional on a question being
reached and carry the noise of small numbers.
"""

from __future__ import annotations

import numpy as np

from galaxies.mock_survey.classes import CLASSES, Impression

_PEOPLE = (16, 76)  # a galaxy: fewest, most
TOTAL_VOTES_RANGE = (60.0, 600.0)  # answers a galaxy, to all questions: what `vote_count` is normalised over
# Question: the answers that lead to it (none: everybody; it is asked if any was given), and its own answers.
QUESTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "t01_smooth_or_features": ((), ("a01_smooth", "a02_features_or_disk", "a03_star_or_artifact")),
    "t02_edgeon": (("a02_features_or_disk",), ("a04_yes", "a05_no")),
    "t03_bar": (("a05_no",), ("a06_bar", "a07_no_bar")),
    "t04_spiral": (("a05_no",), ("a08_spiral", "a09_no_spiral")),
    "t05_bulge_prominence": (
        ("a05_no",),
        ("a10_no_bulge", "a11_just_noticeable", "a12_obvious", "a13_dominant"),
    ),
    "t06_odd": (("a01_smooth", "a02_features_or_disk"), ("a14_yes", "a15_no")),
    "t07_rounded": (("a01_smooth",), ("a16_completely_round", "a17_in_between", "a18_cigar_shaped")),
    "t08_odd_feature": (
        ("a14_yes",),
        (
            "a19_ring",
            "a20_lens_or_arc",
            "a21_disturbed",
            "a22_irregular",
            "a23_other",
            "a24_merger",
            "a38_dust_lane",
        ),
    ),
    "t09_bulge_shape": (("a04_yes",), ("a25_rounded", "a26_boxy", "a27_no_bulge")),
    "t10_arms_winding": (("a08_spiral",), ("a28_tight", "a29_medium", "a30_loose")),
    "t11_arms_number": (
        ("a08_spiral",),
        ("a31_1", "a32_2", "a33_3", "a34_4", "a36_more_than_4", "a37_cant_tell"),
    ),
}
_CERTAINTY = 25.0  # how alike two galaxies of the same look are judged: the sum of a Dirichlet distribution's numbers


def draw_votes(
    morphologies: np.ndarray, structure: dict[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Let people vote on galaxies.

    Parameters
    ----------
    morphologies : ndarray of str, (N,)
    structure : dict of str to ndarray, (N,)
        axis_ratio, bulge_fraction, bar_fraction, arm_strength, num_arms, pitch (radians), dust_depth; NaN where a
        class has no such thing.
    rng : numpy.random.Generator

    Returns
    -------
    dict of str to ndarray, (N,), int64
        total_classifications, and the votes for each answer, named `question_answer` as in gz2_hart16.csv without
        the ending _count.

    Raises
    ------
    ValueError
        If `classes.py` does not say what people see in a class.
    """
    count = len(morphologies)
    people = np.rint(rng.normal(44, 9, count)).clip(*_PEOPLE).astype(np.int64)
    votes: dict[str, np.ndarray] = {}
    given: dict[str, np.ndarray] = {}
    chances = _chances(morphologies, structure)
    for question, (parents, answers) in QUESTIONS.items():
        asked = sum(given[parent] for parent in parents) if parents else people
        opinion = rng.gamma(_CERTAINTY * np.stack(chances[question], 1).clip(1e-3))  # Dirichlet, row by row
        drawn = rng.multinomial(asked, opinion / opinion.sum(1, keepdims=True))
        for place, answer in enumerate(answers):
            given[answer] = drawn[:, place]
            votes[f"{question}_{answer}"] = drawn[:, place]
    return {"total_classifications": people} | votes


def vote_fractions(votes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the fraction of each answer among those who reached its question, (N,), 0 where nobody did."""
    fractions = {}
    for question, (_, answers) in QUESTIONS.items():
        counts = np.stack([votes[f"{question}_{answer}"] for answer in answers])
        total = counts.sum(0)
        for answer, numbers in zip(answers, counts, strict=True):
            fractions[f"{question}_{answer}"] = numbers / np.maximum(total, 1)
    return fractions


def _chances(morphologies: np.ndarray, structure: dict[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Return the probability of each answer to each question, (N,) each; a question's need not sum to 1."""
    if strange := sorted(set(morphologies.tolist()) - set(CLASSES)):
        raise ValueError(f"nobody knows what to vote on the class '{strange[0]}': it is none of {', '.join(CLASSES)}")
    impressions = np.array([CLASSES[name].impression for name in morphologies.tolist()])
    seen = Impression(*impressions.reshape(-1, len(Impression._fields)).T)
    known = {name: np.nan_to_num(values) for name, values in structure.items()}
    q, bulge = known["axis_ratio"], known["bulge_fraction"]
    visible_arms = seen.arms * (0.45 + 0.5 * known["arm_strength"])
    features = seen.features + seen.features_of_arms * known["arm_strength"]
    edge_on = seen.edge_on + seen.flat * (0.4 - q).clip(0) / 0.4 + 0.05
    odd = 0.85 * seen.merging + 0.07 + 0.1 * (known["dust_depth"] > 1)
    merger = 0.85 * seen.merging + 0.04
    bar = 0.06 + (4 * known["bar_fraction"]).clip(max=0.85)
    tight = (1 - np.degrees(known["pitch"]) / 20).clip(0.05, 0.9)
    arms = [np.where(known["num_arms"] == k, 0.7, 0.05) for k in (1, 2, 3, 4)]
    rest = (1 - merger) / 6
    return {
        "t01_smooth_or_features": [1 - features, features, np.full_like(q, 0.02)],
        "t02_edgeon": [edge_on, 1 - edge_on],
        "t03_bar": [bar, 1 - bar],
        "t04_spiral": [visible_arms + 0.05, 0.95 - visible_arms],
        "t05_bulge_prominence": [
            (0.15 - bulge).clip(0) * 4,
            np.exp(-((bulge - 0.12) ** 2) / 0.01),
            np.exp(-((bulge - 0.3) ** 2) / 0.02),
            (bulge - 0.35).clip(0) * 3,
        ],
        "t06_odd": [odd, 1 - odd],
        "t07_rounded": [
            np.exp(-((1 - q) ** 2) / 0.03),
            np.exp(-((0.65 - q) ** 2) / 0.03),
            np.exp(-((0.25 - q) ** 2) / 0.02),
        ],
        "t08_odd_feature": [
            rest * (known["bar_fraction"] > 0),
            rest * 0.5,
            rest + 0.1 * seen.merging,
            rest,
            rest,
            merger,
            rest + 0.5 * (known["dust_depth"] > 1),
        ],
        "t09_bulge_shape": [0.3 + bulge, np.full_like(q, 0.05), (0.6 - 2 * bulge).clip(0.02)],
        "t10_arms_winding": [tight, np.full_like(q, 0.4), 1 - tight],
        "t11_arms_number": [*arms, np.full_like(q, 0.04), 0.3 * (1 - known["arm_strength"])],
    }
