"""Votes on mock galaxies: the decision tree, its fractions, and what people see."""

import numpy as np
import pandas as pd
import pytest

from config_physics import MORPHOLOGY_NAMES
from galaxies.datasets.sources import galaxy_zoo
from galaxies.mock_survey.classes import CLASSES
from galaxies.mock_survey.galaxy_table import columns_of
from galaxies.mock_survey.population import draw_structure
from galaxies.mock_survey.votes import QUESTIONS, TOTAL_VOTES_RANGE, draw_votes, vote_fractions

LOOKS = ("axis_ratio", "bulge_fraction", "bar_fraction", "arm_strength", "num_arms", "pitch", "dust_depth")
EACH = 200  # galaxies of a class
ANSWERS = [f"{question}_{answer}" for question, (_, answers) in QUESTIONS.items() for answer in answers]


def draw(seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the classes, the structure and the votes of galaxies."""
    rng = np.random.default_rng(seed)
    tables = [columns_of(draw_structure(name, EACH, rng)) for name in MORPHOLOGY_NAMES]
    drawn = [{name.split(".")[-1]: values for name, values in table.items()} for table in tables]
    unknown = np.full(EACH, np.nan)
    structure = {name: np.concatenate([s.get(name, unknown) for s in drawn]) for name in LOOKS}
    morphologies = np.repeat(MORPHOLOGY_NAMES, EACH)
    return morphologies, structure, draw_votes(morphologies, structure, rng)


@pytest.fixture(scope="module")
def voted():
    return draw()


def votes_for(votes: dict[str, np.ndarray], answer: str) -> np.ndarray:
    (name,) = (name for name in votes if name.endswith(f"_{answer}"))
    return votes[name]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's rank correlation."""
    ranks = [pd.Series(values).rank() for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_the_tree_is_that_of_galaxy_zoo_2():
    expected = {  # Willett et al. (2013), Table 2: question, the answers that lead to it, its own answers' numbers
        "t01_smooth_or_features": ((), {1, 2, 3}),
        "t02_edgeon": (("a02_features_or_disk",), {4, 5}),
        "t03_bar": (("a05_no",), {6, 7}),
        "t04_spiral": (("a05_no",), {8, 9}),
        "t05_bulge_prominence": (("a05_no",), {10, 11, 12, 13}),
        "t06_odd": (("a01_smooth", "a02_features_or_disk"), {14, 15}),
        "t07_rounded": (("a01_smooth",), {16, 17, 18}),
        "t08_odd_feature": (("a14_yes",), {19, 20, 21, 22, 23, 24, 38}),
        "t09_bulge_shape": (("a04_yes",), {25, 26, 27}),
        "t10_arms_winding": (("a08_spiral",), {28, 29, 30}),
        "t11_arms_number": (("a08_spiral",), {31, 32, 33, 34, 36, 37}),
    }
    tree = {name: (parents, {int(a[1:3]) for a in answers}) for name, (parents, answers) in QUESTIONS.items()}
    assert tree == expected
    assert len(ANSWERS) == 37
    for name in ("SMOOTH", "FEATURES", "EDGE_ON", "ODD", "ROUND", "IN_BETWEEN", "CIGAR", "MERGER"):
        assert getattr(galaxy_zoo, name) in ANSWERS


def test_people_answer_what_they_are_asked(voted):
    _, _, votes = voted
    assert set(votes) == {"total_classifications", *ANSWERS}
    for values in votes.values():
        assert values.dtype == np.int64
        assert values.shape == (4 * EACH,)
        assert (values >= 0).all()
    for question, (parents, answers) in QUESTIONS.items():
        given = sum(votes[f"{question}_{answer}"] for answer in answers)
        asked = sum(votes_for(votes, parent) for parent in parents) if parents else votes["total_classifications"]
        np.testing.assert_array_equal(given, asked, err_msg=question)


def test_number_of_people_and_of_answers(voted):
    _, _, votes = voted
    people = votes["total_classifications"]
    assert people.min() >= 16
    assert people.max() <= 76
    assert np.median(people) == pytest.approx(44, abs=2)
    total = sum(votes[answer] for answer in ANSWERS)
    assert np.mean((total >= TOTAL_VOTES_RANGE[0]) & (total <= TOTAL_VOTES_RANGE[1])) > 0.99


def test_fractions_sum_to_one_where_a_question_was_reached(voted):
    _, _, votes = voted
    fractions = vote_fractions(votes)
    assert set(fractions) == set(ANSWERS)
    for question, (_, answers) in QUESTIONS.items():
        total = sum(fractions[f"{question}_{answer}"] for answer in answers)
        reached = sum(votes[f"{question}_{answer}"] for answer in answers) > 0
        np.testing.assert_allclose(total, reached.astype(float), atol=1e-12, err_msg=question)


def test_fractions_by_hand():
    votes = {answer: np.array([0, 0]) for answer in ANSWERS}
    votes |= {galaxy_zoo.ROUND: np.array([3, 0]), galaxy_zoo.IN_BETWEEN: np.array([1, 0])}
    fractions = vote_fractions(votes)
    assert fractions[galaxy_zoo.ROUND].tolist() == [0.75, 0]
    assert fractions[galaxy_zoo.IN_BETWEEN].tolist() == [0.25, 0]
    assert fractions[galaxy_zoo.CIGAR].tolist() == [0, 0]


@pytest.mark.parametrize(("rule", "share"), [("gated", 0.97), ("paper", 0.9)])
def test_the_class_rules_recover_the_truth(voted, rule, share):
    morphologies, _, votes = voted
    found = galaxy_zoo.classify(pd.DataFrame(vote_fractions(votes)), rule).to_numpy()
    for name in MORPHOLOGY_NAMES:
        assert np.mean(found[morphologies == name] == name) > share, name


def test_people_see_structure(voted):
    morphologies, looks, votes = voted
    fractions = vote_fractions(votes)
    see = lambda answer, rows: votes_for(fractions, answer)[rows]  # noqa: E731
    spiral, elliptical, edge_on = (morphologies == name for name in ("spiral", "elliptical", "edge-on"))
    barred = looks["bar_fraction"] > 0
    assert see("a06_bar", spiral & barred).mean() > see("a06_bar", spiral & ~barred).mean() + 0.3
    for arms, answer in ((1, "a31_1"), (2, "a32_2"), (3, "a33_3"), (4, "a34_4")):
        assert see(answer, spiral & (looks["num_arms"] == arms)).mean() > 0.5
        assert see(answer, spiral & (looks["num_arms"] != arms)).mean() < 0.15
    assert correlation(looks["pitch"][spiral], see("a28_tight", spiral)) < -0.5
    assert correlation(looks["bulge_fraction"][spiral], see("a10_no_bulge", spiral)) < -0.5
    assert correlation(looks["axis_ratio"][elliptical], see("a16_completely_round", elliptical)) > 0.7
    dusty = looks["dust_depth"] > 1
    assert see("a38_dust_lane", edge_on & dusty).mean() > see("a38_dust_lane", edge_on & ~dusty).mean() + 0.2


def test_votes_depend_on_the_stream_alone():
    first, again, other = draw(1)[2], draw(1)[2], draw(2)[2]
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
    assert any((values != other[name]).any() for name, values in first.items())


def test_people_know_every_class_of_the_table_and_no_other():
    assert set(CLASSES) == set(MORPHOLOGY_NAMES)
    with pytest.raises(ValueError, match="the class 'ring': it is none of spiral, elliptical"):
        draw_votes(np.array(["spiral", "ring"]), {name: np.ones(2) for name in LOOKS}, np.random.default_rng(0))


def test_nothing_is_known_of_the_structure():
    unknown = {name: np.full(4, np.nan) for name in LOOKS}
    votes = draw_votes(np.array(MORPHOLOGY_NAMES), unknown, np.random.default_rng(0))
    assert all(len(values) == 4 and (values >= 0).all() for values in votes.values())
