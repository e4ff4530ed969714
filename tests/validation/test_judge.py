"""The independent judge: what it learns, calibration, storage beside its dataset, and bad input."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from galaxies.common.attributes import attribute_defined
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.storage.checkpoint import load_checkpoint, save_checkpoint
from galaxies.validation import judge
from galaxies.validation.judge import Judge, dataset_key, fit_temperature, train_judge
from tests.conftest import write_dataset

CPU = torch.device("cpu")


def with_splits(data: PreparedDataset, judged: int) -> PreparedDataset:
    """Give the first `judged` galaxies to the judge and the rest to the test split."""
    splits = np.where(np.arange(len(data.catalogue)) < judged, "judge", "test")
    return dataclasses.replace(data, catalogue=data.catalogue.assign(split=splits))


@pytest.fixture(scope="module")
def survey(tmp_path_factory) -> PreparedDataset:
    path = write_dataset(tmp_path_factory.mktemp("judged") / "survey", count=360, seed=7)
    return with_splits(PreparedDataset.open(path), 240)


@pytest.fixture(scope="module")
def trained_judge(survey) -> Judge:
    return Judge(train_judge(survey, CPU, epochs=9), CPU)


def test_it_knows_galaxies_that_it_has_not_seen(survey, trained_judge):
    rows = survey.rows("test")
    images = torch.from_numpy(np.ascontiguousarray(survey.images[rows]))
    probabilities = trained_judge.classify(images)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(rows)))
    right = (probabilities.argmax(1).numpy() == survey.classes(rows)).mean()
    assert right > 0.7  # a guess is 0.25; spirals and ellipticals differ in colour, edge-ons in shape
    read = trained_judge.read(images).numpy()
    for name in ("size", "ellipticity", "color"):
        column = trained_judge.attributes.index(name)
        truth = survey.attributes((name,), rows)[:, 0]
        assert np.corrcoef(read[:, column], truth)[0, 1] > 0.75, name


def test_its_card_says_what_it_was_trained_on(trained_judge):
    card = trained_judge.card
    assert (card["galaxies"], card["held_out"]) == (180, 60)
    assert 0.4 < card["accuracy_held_out"] <= 1
    assert set(card["mae_held_out"]) == set(trained_judge.attributes)
    assert "redshift" in trained_judge.attributes


def test_answers_do_not_depend_on_orientation_number_format_or_company(survey, trained_judge):
    images = torch.from_numpy(np.array(survey.images[:5]))
    for answer in (trained_judge.classify, trained_judge.read):
        expected = answer(images)
        torch.testing.assert_close(answer(images.rot90(1, (2, 3))), expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(answer(images.flip(3)), expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(answer(images.float() / 255), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(answer(images[2:3]), expected[2:3], rtol=1e-3, atol=1e-4)
    features = trained_judge.features(images)
    assert features.shape == (5, 128)
    assert features.dtype == torch.float32


def test_it_only_looks_at_its_own_split(survey):
    black = np.array(survey.images)
    black[survey.rows("test")] = 0
    state = train_judge(survey, CPU, epochs=1)
    other = train_judge(dataclasses.replace(survey, images=black), CPU, epochs=1)
    for name, value in state["network"].items():
        assert torch.equal(value, other["network"][name]), name


def test_training_is_repeatable_and_leaves_the_global_random_state(survey):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = train_judge(survey, CPU, epochs=1)
    assert torch.equal(torch.rand(3), expected)
    second = train_judge(survey, CPU, epochs=1)
    assert all(torch.equal(first["network"][name], second["network"][name]) for name in first["network"])


def test_it_is_trained_once_and_stored_beside_its_dataset(tmp_path, monkeypatch, capsys):
    data = with_splits(PreparedDataset.open(write_dataset(tmp_path / "survey", count=120)), 120)
    trainings = []
    state = train_judge(data, CPU, epochs=1)
    monkeypatch.setattr(judge, "train_judge", lambda data, device: trainings.append(data) or state)
    images = torch.from_numpy(np.array(data.images[:4]))
    first = Judge.of_dataset(data, "cpu").classify(images)
    (path,) = data.path.glob("judge-*.pt")
    assert torch.equal(Judge.of_dataset(data, "cpu").classify(images), first)
    assert len(trainings) == 1
    # A damaged file is replaced.
    path.write_bytes(path.read_bytes()[:1000])
    assert torch.equal(Judge.of_dataset(data, "cpu").classify(images), first)
    assert len(trainings) == 2
    # So is one that holds what no training leaves.
    faults = [{"temperature": math.nan}, {"network": {}}, {"centre": torch.zeros(1)}, {"card": None}, {"attributes": 5}]
    faults += [{"network": {name: value * math.nan for name, value in state["network"].items()}}]
    for fault in faults:
        save_checkpoint(path, {**load_checkpoint(path), **fault})
        assert torch.equal(Judge.of_dataset(data, "cpu").classify(images), first)
    assert len(trainings) == 2 + len(faults)
    assert "cannot be used, since temperature is nan" in capsys.readouterr().out
    # Other data have another judge.
    changed = dataclasses.replace(data, manifest={**data.manifest, "sha256": {"images.npy": "0", "catalogue.csv": "1"}})
    assert dataset_key(changed) != dataset_key(data)
    Judge.of_dataset(changed, "cpu")
    assert len(trainings) == 3 + len(faults)
    assert len(list(data.path.glob("judge-*.pt"))) == 2


def test_it_reads_the_structure_that_enough_galaxies_know(tmp_path, monkeypatch):
    data = with_splits(PreparedDataset.open(write_dataset(tmp_path / "survey", count=120)), 120)
    trainings = []
    before = train_judge(data, CPU, epochs=1)
    monkeypatch.setattr(judge, "train_judge", lambda data, device: trainings.append(data) or before)
    Judge.of_dataset(data, "cpu")
    known = np.where(np.arange(120) < 80, np.linspace(0, 0.5, 120), np.nan)
    few = np.where(np.arange(120) < 40, np.linspace(1, 4, 120), np.nan)
    told = dataclasses.replace(data, catalogue=data.catalogue.assign(bulge=known, arm_count=few, odd=0.5))
    after = train_judge(told, CPU, epochs=1)
    assert after["attributes"] == [*before["attributes"], "bulge"]
    Judge.of_dataset(told, "cpu")  # one of before such attributes were read is trained again
    assert len(trainings) == 2


def test_attributes_are_learned_on_their_scales(survey):
    """Of values over six decades the judge's standard is that of their logarithms."""
    lit = attribute_defined("sfr:scale=log,low=1e-3,high=1e3")
    values = 10 ** np.linspace(-3, 3, len(survey.catalogue))
    layout = dataclasses.replace(survey.layout, own=(lit,))
    catalogue = survey.catalogue.assign(sfr=values)
    some = dataclasses.replace(survey, catalogue=catalogue, layout=layout)
    state = train_judge(some, CPU, epochs=1)
    place = list(state["attributes"]).index("sfr")
    known = np.log10(values[survey.rows("judge")])
    decades = lit.steps_of(np.array([1.0, 10.0]))  # of the scale a decade is so long
    decade = float(decades[1] - decades[0])
    assert float(state["spread"][place]) / decade == pytest.approx(known.std(), rel=0.1)
    assert float(state["centre"][place] - decades[0]) / decade == pytest.approx(known.mean(), abs=0.3)


def test_a_judge_that_cannot_be_stored_still_judges(tmp_path, monkeypatch, capsys):
    data = with_splits(PreparedDataset.open(write_dataset(tmp_path / "survey", count=120)), 120)
    state = train_judge(data, CPU, epochs=1)

    def refuse(path, state):
        raise UserError(f"{path} could not be written: no space left")

    monkeypatch.setattr(judge, "train_judge", lambda data, device: state)
    monkeypatch.setattr(judge, "save_checkpoint", refuse)
    assert Judge.of_dataset(data, "cpu").attributes == tuple(state["attributes"])
    assert "could not be written" in capsys.readouterr().out


def test_too_few_galaxies_are_refused(survey):
    with pytest.raises(UserError, match="has 40 galaxies for the judge, which needs 100"):
        train_judge(with_splits(survey, 40), CPU)


def test_a_judge_that_learns_nothing_is_refused(survey, monkeypatch):
    monkeypatch.setattr(judge, "_loss", lambda outputs, *rest: outputs[0].sum() * torch.nan)
    monkeypatch.setattr(judge, "_PATIENCE", 1)
    with pytest.raises(UserError, match="did not train: its loss was never finite"):
        train_judge(survey, CPU, epochs=3)


def test_a_class_that_is_missing_is_never_held_out(survey):
    names = survey.catalogue["morphology"].replace("merger", "spiral")
    data = dataclasses.replace(survey, catalogue=survey.catalogue.assign(morphology=names))
    state = train_judge(data, CPU, epochs=1)
    assert np.isfinite(state["card"]["accuracy_held_out"])


@pytest.mark.parametrize("bad", [torch.zeros(0, 3, 64, 64), torch.zeros(2, 1, 64, 64), torch.zeros(3, 64, 64)])
def test_images_of_another_shape_are_refused(trained_judge, bad):
    with pytest.raises(ValueError, match="must have the shape"):
        trained_judge.classify(bad)


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_temperature_undoes_a_scaling_of_the_logits(factor):
    random = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(8_000, 4, generator=random)
    classes = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    found = fit_temperature(factor * logits, classes, torch.ones(len(classes)))
    assert found == pytest.approx(factor, rel=0.05)
