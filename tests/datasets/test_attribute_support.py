"""Which attributes of a dataset a run can be conditioned on, and which of their values it believes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from galaxies.common.errors import UserError
from galaxies.datasets.attribute_support import believed, choose_attributes, value_limits
from galaxies.datasets.prepared import PreparedDataset

DEFAULT = ("size", "brightness", "ellipticity", "redshift")
TRAIN = 100


def dataset(**columns) -> PreparedDataset:
    """Return a dataset of 100 training and 20 test galaxies in memory, with other columns; None takes one out."""
    import pandas as pd

    count, rng = TRAIN + 20, np.random.default_rng(0)
    values = {name: rng.uniform(0.1, 0.2, count) for name in DEFAULT} | columns
    catalogue = pd.DataFrame({name: column for name, column in values.items() if column is not None})
    catalogue["split"] = ["train"] * TRAIN + ["test"] * 20
    catalogue["morphology"] = "spiral"
    catalogue = catalogue.dropna(axis=1, how="all")  # as it is written
    manifest = {"attributes": {name: int(catalogue[name].notna().sum()) for name in values if name in catalogue}}
    return PreparedDataset("d", np.zeros((count, 3, 64, 64), np.uint8), catalogue, manifest)


def known(*rows: int) -> np.ndarray:
    values = np.full(TRAIN + 20, np.nan)
    values[list(rows)] = np.linspace(0.1, 0.2, len(rows))
    return values


def test_all_that_is_known_and_differs_is_taken_without_a_word():
    assert choose_attributes(dataset(), DEFAULT, by_hand=False) == (DEFAULT, "")
    assert choose_attributes(dataset(), DEFAULT[::-1], by_hand=True) == (DEFAULT[::-1], "")


@pytest.mark.parametrize(
    ("redshift", "reason"),
    [
        (None, "known for no galaxy"),
        (known(), "known for no galaxy"),
        (known(100, 101, 119), "known for no training galaxy"),
        (np.full(120, 0.05), "0.05 for every training galaxy that knows it"),
        # One more value of the test split does not make the training galaxies differ, nor do roundings.
        (np.r_[np.full(TRAIN, 0.05), np.full(20, 0.1)], "0.05 for every training galaxy that knows it"),
        (np.float32(0.05) + 1e-9 * np.arange(120), "0.05 for every training galaxy that knows it"),
    ],
)
def test_what_cannot_be_learned_is_left_out_with_the_reason_or_an_error_if_named(redshift, reason):
    data = dataset(redshift=redshift)
    assert choose_attributes(data, DEFAULT, by_hand=False) == (DEFAULT[:3], f"left out: redshift ({reason})")
    with pytest.raises(UserError) as error:
        choose_attributes(data, DEFAULT, by_hand=True)
    what = "has no values of 'redshift'" if reason == "known for no galaxy" else f"cannot teach redshift ({reason})"
    assert str(error.value) == f"d {what}: choose --attributes from size, brightness, ellipticity"


def test_a_handful_is_left_out_unless_named():
    data = dataset(redshift=known(*range(19)))
    said = "left out: redshift (known for 19 of 100 training galaxies)"
    assert choose_attributes(data, DEFAULT, by_hand=False) == (DEFAULT[:3], said)
    assert choose_attributes(data, DEFAULT, by_hand=True) == (DEFAULT, "")
    assert choose_attributes(dataset(redshift=known(*range(20))), DEFAULT, by_hand=False) == (DEFAULT, "")


def test_where_there_are_few_galaxies_half_of_them_are_enough():
    data = dataset(redshift=known(*range(5)))
    for count, kept in ((10, DEFAULT), (12, DEFAULT[:3])):
        few = replace(data, catalogue=data.catalogue.iloc[:count], images=data.images[:count])
        assert choose_attributes(few, DEFAULT, by_hand=False)[0] == kept


def test_where_none_is_left_a_sentence_names_what_there_is():
    data = dataset(concentration=np.linspace(2, 3, 120), **dict.fromkeys(DEFAULT, np.full(120, 0.1)))
    with pytest.raises(UserError, match=r"d cannot teach size, .*redshift \(0\.1 .*choose --attributes from concentr"):
        choose_attributes(data, DEFAULT, by_hand=False)
    with pytest.raises(UserError, match="choose --attributes from another dataset: this one has none that differs"):
        choose_attributes(dataset(**dict.fromkeys(DEFAULT, np.full(120, 0.1))), DEFAULT, by_hand=False)


def test_a_value_far_beyond_all_others_is_not_believed():
    size = np.random.default_rng(1).normal(0.15, 0.03, 120)
    size[7], size[110] = 812.0, -5.0
    data = dataset(size=size)
    limits = value_limits(data, DEFAULT)
    # The slider of size goes from 0.05 to 0.28: two of it are more than 15 interquartile ranges of 0.03 here.
    middle = float(np.median(size[:TRAIN]))
    assert limits == {"size": pytest.approx((middle - 0.46, middle + 0.46))}
    wide = dataset(size=np.where(np.arange(120) == 7, 812.0, np.linspace(0, 2, 120)))
    quarter = np.quantile(wide.catalogue["size"][:TRAIN].astype(np.float32), [0.25, 0.5, 0.75])
    far = 15 * (quarter[2] - quarter[0])
    assert value_limits(wide, DEFAULT) == {"size": pytest.approx((quarter[1] - far, quarter[1] + far), rel=1e-5)}
    values = believed(data.attributes(DEFAULT, np.arange(120)), DEFAULT, limits)
    assert np.flatnonzero(np.isnan(values).any(1)).tolist() == [7, 110]
    kept, said = choose_attributes(data, DEFAULT, by_hand=False)
    assert kept == DEFAULT and said.startswith("counted as unknown: size of 2 galaxies (such as 812, beyond ")
    assert choose_attributes(data, DEFAULT, by_hand=True)[1] == said


def test_a_lone_value_beside_equal_ones_makes_no_spread():
    data = dataset(redshift=np.r_[3.0, np.full(119, 0.05)])
    said = choose_attributes(data, DEFAULT, by_hand=False)[1]
    assert said == "left out: redshift (0.05 for every training galaxy that knows it)"


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(0.5, 3.5, 120),  # redshifts of a deep survey, all beyond the slider
        np.random.default_rng(2).lognormal(-2, 0.8, 120),  # a long tail
        np.r_[np.full(60, 0.01), np.full(60, 0.24)],  # two groups
    ],
)
def test_values_that_others_are_like_are_believed(values):
    assert value_limits(dataset(redshift=values), DEFAULT) == {}
