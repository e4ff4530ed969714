"""Neighbourhoods, the search for copies, and the sets of set_comparison."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from config_physics import MORPHOLOGY_NAMES
from galaxies.compute.device import Engine
from galaxies.measure.statistics_table import measure_images
from galaxies.validation.comparison import (
    compare_statistics,
    compare_variety,
    groups_of,
    look_for_copies,
    power_ratio,
    real_or_fake,
)
from galaxies.validation.distances import compare_values
from galaxies.validation.neighbours import nearest_training, neighbourhoods
from galaxies.validation.report.cells import LeftOut
from tests.conftest import render_galaxies

KEYS = ("precision", "recall", "density", "coverage")
CPU = Engine(torch.device("cpu"), bf16=False)


def galaxies(count: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    images, names = render_galaxies(count, seed)
    return torch.from_numpy(images), np.array([MORPHOLOGY_NAMES.index(name) for name in names])


def test_neighbourhoods_of_identical_and_of_disjoint_sets():
    points = np.random.default_rng(0).normal(size=(60, 4))
    assert neighbourhoods(points, points) == pytest.approx(dict.fromkeys(KEYS, 1.0))
    assert neighbourhoods(points, points + 100) == pytest.approx(dict.fromkeys(KEYS, 0.0))


def test_neighbourhoods_tell_missing_variety_from_missing_realism():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(300, 2))
    narrow = neighbourhoods(real, rng.normal(0, 0.2, (300, 2)))
    assert narrow["precision"] > 0.95 and narrow["recall"] < 0.5 and narrow["coverage"] < 0.5
    wide = neighbourhoods(real, rng.normal(0, 5, (300, 2)))
    assert wide["precision"] < 0.4 and wide["recall"] > 0.9 and wide["density"] < 0.4


def test_neighbourhoods_by_hand():
    real, made = np.array([[0.0], [1.0], [10.0]]), np.array([[0.5], [4.0], [30.0]])
    # k = 1: real radii 1, 1, 9; generated radii 3.5, 3.5, 26.
    found = neighbourhoods(real, made, k=1)
    # 0.5 lies in two real balls, 4 in that of 10, 30 in none; 0 and 1 lie near 0.5, and all but 0 and 1 near 30.
    assert found == pytest.approx({"precision": 2 / 3, "recall": 1.0, "density": 1.0, "coverage": 1.0})


def test_too_few_rows_for_neighbourhoods():
    with pytest.raises(ValueError, match="need more rows than 5 and 9"):
        neighbourhoods(np.zeros((5, 2)), np.zeros((9, 2)))


@pytest.mark.parametrize(
    "change",
    [lambda i: i.transpose(2, 3).flip(2), lambda i: i.flip(3), lambda i: i.transpose(2, 3), lambda i: i.flip((2, 3))],
    ids=["a quarter turn", "mirrored", "mirrored and turned", "half a turn"],
)
def test_a_turned_and_noisy_copy_is_found(change):
    training, _ = galaxies(40, 1)
    copy = change(training[[3, 17]]).int()
    copy = (copy + torch.randint(-3, 4, copy.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 255)
    distance, index = nearest_training(copy.to(torch.uint8), training)
    assert index.tolist() == [3, 17]
    assert (distance < 1).all()
    fresh, _ = nearest_training(galaxies(8, 2)[0], training)
    assert fresh.min() > distance.max()


def test_copies_are_reported_and_new_galaxies_are_not():
    training, _ = galaxies(120, 1)
    held_out, _ = galaxies(60, 2)
    rows = np.arange(len(training))
    report, _ = look_for_copies(galaxies(60, 3)[0], held_out, training.numpy(), rows, 0, CPU)
    assert report.copies.value < 0.15
    assert 0.3 < report.nearer_than_held_out < 0.7
    report, pictures = look_for_copies(training[:60].flip(3), held_out, training.numpy(), rows, 0, CPU)
    assert report.copies.value == 1
    assert report.nearer_than_held_out == 1
    assert torch.equal(pictures.pairs[0].flip(3), pictures.pairs[1])
    report, pictures = look_for_copies(training[:5], held_out, training.numpy(), rows, 0, CPU)
    assert "has 5, 60 and 120" in report.reason and pictures is None


def test_variety_of_one_image_is_none():
    real, classes = galaxies(80, 1)
    groups = groups_of(classes, classes)
    other = galaxies(80, 2)[0]
    varied = compare_variety(other, real, None, groups)
    assert all(0.7 < entry.pixels < 1.4 for entry in varied.values())
    collapsed = compare_variety(real[classes.tolist()], real, None, groups)  # one image a class
    assert all(collapsed[name].pixels == 0 for name in MORPHOLOGY_NAMES)
    assert isinstance(compare_variety(other[:9], real, None, groups_of(classes[:9], classes))["spiral"], LeftOut)
    alike = compare_variety(other, real[:1].expand_as(real), None, groups)["all"]
    assert isinstance(alike, LeftOut) and "all the same picture" in alike.reason


def test_brighter_galaxies_stand_out_in_statistics_and_power():
    (real, classes), (made, _) = galaxies(80, 1), galaxies(80, 2)
    groups = {"all": groups_of(classes, classes)["all"]}
    brighter = (made.float() * 1.4).clamp(0, 255).to(torch.uint8)
    real_values = measure_images(real)
    plain = compare_values(measure_images(made).values["brightness"], real_values.values["brightness"], 0)
    assert plain["w1"]["multiple"] < 2
    changed = compare_statistics(measure_images(brighter), real_values, groups, 0)
    assert changed.table["brightness"]["all"].w1.multiple > 3
    assert changed.table["brightness"]["all"].shift > 0.3
    whole = [row["all"].w1.whole for row in changed.table.values()]
    assert changed.mean["all"].whole == pytest.approx(sum(whole) / len(whole))
    ratio = np.array(power_ratio(made.flip(2), made, groups, 0).groups["all"].ratio)
    assert ratio == pytest.approx(1, rel=1e-3)
    power = power_ratio(brighter, made, groups, 0).groups["all"]
    assert np.all(np.array(power.ratio)[:6] > 1.4)
    low, high = power.interval
    assert np.all((low < np.array(power.ratio)) & (np.array(power.ratio) < high))
    assert isinstance(power_ratio(made[:9], real, groups_of(classes[:9], classes), 0).groups["all"], LeftOut)


def test_a_fresh_network_tells_noise_and_says_when_there_is_too_little():
    (learned, classes), (tested, _), (made, _) = galaxies(96, 1), galaxies(96, 2), galaxies(192, 3)
    noisy = (made.float() + 30 * torch.rand(made.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 255)
    made_classes = np.concatenate([classes, classes])
    arguments = (made_classes, (learned.numpy(), classes), (tested.numpy(), classes), 12, 0, CPU)
    rates = real_or_fake(noisy.to(torch.uint8).numpy(), *arguments)
    assert rates.groups["all"].auc > 0.95  # the threshold needs more steps to settle than the order of the scores
    assert rates.learned == 96 and rates.groups["all"].pairs == 96
    few = real_or_fake(made.numpy(), made_classes, (learned[:8].numpy(), classes[:8]), *arguments[2:])
    assert few.reason.startswith("needs 20 pairs")
