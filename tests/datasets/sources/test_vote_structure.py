"""What votes tell of arms, bars and bulges: by hand, by mock voters who looked at known galaxies, and out of tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from config_physics import STRUCTURE_ATTRIBUTES
from galaxies.common.errors import UserError
from galaxies.datasets.sources import galaxy_zoo
from galaxies.datasets.sources.labelled import read_labels
from galaxies.datasets.sources.vote_structure import (
    ANSWERS,
    ARMS,
    BAR,
    DOMINANT,
    FACE_ON,
    FEATURES,
    JUST_NOTICEABLE,
    MODERATE,
    NAMES,
    NO_BULGE,
    OBVIOUS,
    ODD,
    RING,
    SPIRAL,
    UNTOLD,
    structure_attributes,
)
from galaxies.datasets.sources.vote_structure import told as sentence
from galaxies.mock_survey.votes import draw_votes, vote_fractions
from tests.datasets.sources.test_galaxy_zoo import GALAXIES, votes_table, write_folder

SEEN = {FEATURES: 0.9, FACE_ON: 0.9, SPIRAL: 0.9, BAR: 0.5, ODD: 0.4, RING: 0.25} | {
    **dict.fromkeys((NO_BULGE, OBVIOUS, DOMINANT), 0.0),
    JUST_NOTICEABLE: 1.0,
    **dict.fromkeys(ARMS.values(), 0.0),
    ARMS[2]: 0.6,
    ARMS[3]: 0.2,
    UNTOLD: 0.2,
}


def told(morphology="spiral", **changes):
    """Return the attributes of one galaxy whose votes are `SEEN` but for changes."""
    names = {"features": FEATURES, "face_on": FACE_ON, "spiral": SPIRAL, "untold": UNTOLD, "bar": BAR, "odd": ODD}
    votes = SEEN | {names.get(name, name): value for name, value in changes.items()}
    return structure_attributes(pd.DataFrame([votes]), [morphology]).iloc[0]


def test_expected_values_by_hand():
    found = told()
    assert found["arm_count"] == pytest.approx((2 * 0.6 + 3 * 0.2) / 0.8)
    assert found["bar"] == pytest.approx(0.07)  # half of the people saw one, which would have 14 %
    assert found["ring"] == pytest.approx(0.1) and found["odd"] == pytest.approx(0.4)
    assert tuple(found.index) == NAMES == STRUCTURE_ATTRIBUTES
    # "More than four" are counted as five.
    assert told(**{ARMS[2]: 0, ARMS[3]: 0, ARMS[5]: 0.3})["arm_count"] == 5


@pytest.mark.parametrize(
    ("answer", "hubble_type", "part"),
    # Types by eq. 19 of Willett et al. (2013); parts for them read off fig. 2 of Simien & de Vaucouleurs (1986), where
    # Sa have 0.4, Sb 0.24, Sc 0.1 and Sd hardly any of their light in the bulge.
    [(NO_BULGE, 8.8, 0.0), (JUST_NOTICEABLE, 4.63, 0.12), (OBVIOUS, 2.36, 0.29), (DOMINANT, -3.75, 0.73)],
)
def test_a_bulge_has_what_is_usual_for_its_type(answer, hubble_type, part):
    tau = hubble_type + 5
    magnitudes = np.polyval([0.0047, -0.054, 0.324, 0], tau)
    found = told(**{JUST_NOTICEABLE: 0.0, answer: 0.4})["bulge"]  # of the others the answers do not add up to 1
    assert found == pytest.approx(10 ** (-magnitudes / 2.5)) and found == pytest.approx(part, abs=0.012)


def test_moderate_bulges_lie_between_just_noticeable_and_obvious_ones():
    moderate = told(**{JUST_NOTICEABLE: 0.0, MODERATE: 1.0})["bulge"]
    both = told(**{JUST_NOTICEABLE: 0.5, OBVIOUS: 0.5})["bulge"]
    assert moderate == pytest.approx(both) and 0.12 < moderate < 0.29


@pytest.mark.parametrize(
    ("changes", "unknown"),
    [
        ({"features": 0.43}, {"arm_count", "bar", "bulge"}),
        ({"face_on": 0.715}, {"arm_count", "bar", "bulge"}),
        ({"spiral": 0.619}, {"arm_count"}),
        ({"untold": 0.81}, {"arm_count"}),
        ({"untold": 0.79}, set()),
        ({"features": 0.44, "face_on": 0.72, "spiral": 0.62}, set()),
        (dict.fromkeys(ARMS.values(), 0.0) | {"untold": 0.0}, {"arm_count"}),
        ({"bar": np.nan}, {"bar"}),
        ({"odd": np.nan}, {"odd", "ring"}),
        (dict.fromkeys((NO_BULGE, JUST_NOTICEABLE, OBVIOUS, DOMINANT), 0.0), {"bulge"}),
        ({NO_BULGE: np.nan}, {"bulge"}),
        ({"morphology": "elliptical"}, {"arm_count", "bar", "bulge"}),
        ({"morphology": None}, {"arm_count", "bar", "bulge"}),
    ],
)
def test_what_too_few_people_told_is_unknown(changes, unknown):
    assert {name for name, value in told(**changes).items() if np.isnan(value)} == unknown


def test_a_table_without_such_questions_tells_nothing():
    votes = pd.DataFrame({FEATURES: [0.9, 0.8]}, index=[3, 7])
    found = structure_attributes(votes, ["spiral", "spiral"])
    assert found.isna().all(axis=None) and list(found.index) == [3, 7]


def test_mock_voters_tell_what_they_looked_at():
    """The mock survey's people have their own ideas of what they see, and know the formulas of neither paper."""
    rng, count = np.random.default_rng(3), 3000
    truth = {
        "axis_ratio": rng.uniform(0.8, 1, count),
        "bulge_fraction": rng.uniform(0.02, 0.45, count),
        "bar_fraction": np.where(rng.random(count) < 0.4, rng.uniform(0.06, 0.22, count), 0),
        "arm_strength": np.full(count, 0.7),
        "num_arms": rng.integers(1, 5, count).astype(float),
        "pitch": np.radians(rng.uniform(9, 26, count)),
        "dust_depth": np.zeros(count),
    }
    votes = draw_votes(np.full(count, "spiral"), truth, rng)
    found = structure_attributes(pd.DataFrame(vote_fractions(votes)), ["spiral"] * count)
    arms = found["arm_count"]
    known = arms.notna()
    assert known.mean() > 0.5
    for number in (1, 2, 3, 4):  # every fifth of the mock's people sees another number
        assert arms[known & (truth["num_arms"] == number)].median() == pytest.approx(number, abs=0.55)
    assert found["bulge"].corr(pd.Series(truth["bulge_fraction"]), method="spearman") > 0.7
    assert (found["bulge"] - truth["bulge_fraction"]).abs().mean() < 0.08
    barred = truth["bar_fraction"] > 0
    assert found["bar"][barred].mean() > 3 * found["bar"][~barred].mean()
    assert found["bar"].mean() == pytest.approx(truth["bar_fraction"].mean(), abs=0.02)


def test_galaxy_zoo_2_gives_what_people_saw_and_not_the_debiased(tmp_path):
    votes = votes_table()
    spiral = votes["dr7objid"] == next(iter(GALAXIES))
    for answer in ANSWERS:
        if answer == MODERATE:
            continue
        votes[answer + "_weighted_fraction"] = np.where(spiral, SEEN[answer], 0.0)
        if answer not in (FEATURES, ODD):
            votes[answer + "_debiased"] = 0.5
    galaxies = galaxy_zoo.read_catalogue(write_folder(tmp_path, votes)).galaxies
    first = galaxies.iloc[0]
    assert first["morphology"] == "spiral"
    pd.testing.assert_series_equal(first[list(NAMES)].astype(float), told(), check_names=False)
    assert galaxies["arm_count"].notna().sum() == 1
    # Without them the debiased ones have to do.
    votes = votes.drop(columns=[name for name in votes if name.endswith("weighted_fraction") and "t11" in name])
    again = galaxy_zoo.read_catalogue(write_folder(tmp_path, votes)).galaxies.iloc[0]
    assert again["arm_count"] == pytest.approx(3) and again["bar"] == first["bar"]


def test_tables_without_details_are_read_as_before(tmp_path):
    galaxies = galaxy_zoo.read_catalogue(write_folder(tmp_path)).galaxies
    assert galaxies[["arm_count", "bar", "bulge", "ring"]].isna().all(axis=None)
    assert galaxies["odd"].notna().any()


def test_how_many_are_told_is_said():
    table = pd.DataFrame(np.nan, index=range(3), columns=list(NAMES))
    assert sentence(table) == ""
    table.loc[:1, "arm_count"], table.loc[0, "odd"] = 2.0, 0.1
    assert sentence(table) == "votes tell arm_count of 2, odd of 1 of these galaxies"


def test_labels_keep_structure(tmp_path, capsys):
    (tmp_path / "l.csv").write_text(
        "image,morphology,arm_count,bar,bulge,ring\na.png,spiral,3,0,0.2,1\nb.png,spiral,-9999,0.1,,0\n"
        "c.png,elliptical,,,,\n",
        encoding="utf-8",
    )
    labels = read_labels(tmp_path / "l.csv").galaxies
    np.testing.assert_array_equal(labels["arm_count"], [3, np.nan, np.nan])
    np.testing.assert_array_equal(labels["bar"], [0, 0.1, np.nan])  # none is what a disc can have
    np.testing.assert_array_equal(labels["bulge"], [0.2, np.nan, np.nan])
    np.testing.assert_array_equal(labels["ring"], [1, 0, np.nan])
    assert "ignored" not in capsys.readouterr().out
    (tmp_path / "l.csv").write_text("image,morphology,arm_count\nc.png,spiral,0\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"arm_count .*row 2 holds '0'.*an unknown value is an empty cell"):
        read_labels(tmp_path / "l.csv")  # a spiral has at least one
