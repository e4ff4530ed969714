"""Batches of a prepared dataset."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.datasets import batches as module
from galaxies.datasets.batches import DeviceBatches
from galaxies.datasets.prepared import PreparedDataset, to_uint8
from tests.conftest import write_dataset


def batches(data, **settings) -> DeviceBatches:
    return DeviceBatches(data, "train", Config(batch_size=16, **settings), torch.device("cpu"))


def draw_epoch(source: DeviceBatches) -> list:
    source.start_epoch()
    return [source.next_batch() for _ in range(len(source))]


def test_an_epoch_shows_every_image_once(data):
    source = batches(data, augment=False, attributes=("size",))
    drawn = torch.cat([b.images for b in draw_epoch(source)])
    assert len(drawn) == len(source) * 16
    assert len(torch.unique(drawn.flatten(1), dim=0)) == len(drawn)


def test_images_and_conditions_stay_together(data):
    source = batches(data, augment=False, attributes=("size",))
    rows = data.rows("train")
    by_picture = {data.images[r].tobytes(): data.catalogue["size"].iloc[r] for r in rows}
    batch = draw_epoch(source)[0]
    for image, scaled in zip(to_uint8(batch.images), batch.scaled[:, 0], strict=True):
        assert 0.05 + 0.23 * float(scaled) == pytest.approx(by_picture[image.numpy().tobytes()], abs=1e-5)


def test_same_seed_same_batches_other_seed_other_batches(data):
    first, again, other = (draw_epoch(batches(data, seed=s))[0].images for s in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_epochs_differ(data):
    source = batches(data)
    assert not torch.equal(draw_epoch(source)[0].images, draw_epoch(source)[0].images)


def test_state_goes_on_in_the_middle_of_an_epoch(data):
    source = batches(data)
    source.start_epoch()
    source.next_batch()
    state = source.state_dict()
    rest = [source.next_batch().images for _ in range(len(source) - 1)]
    copy = batches(data, seed=99)
    copy.load_state_dict(state)
    assert all(torch.equal(copy.next_batch().images, images) for images in rest)


def test_balanced_epochs_draw_rare_classes_as_often(data, tmp_path):
    rare = write_dataset(tmp_path / "rare", 160)
    opened = PreparedDataset.open(rare)
    keep = (opened.catalogue["morphology"] != "merger") | (np.arange(160) < 20)
    opened.catalogue.loc[~keep, "split"] = "judge"
    source = batches(opened, balanced=True)
    share = torch.cat([b.classes for _ in range(20) for b in draw_epoch(source)]).bincount(minlength=4)
    share = share / share.sum()
    # 20 epochs of about 112 draws: four standard deviations of a quarter are 0.037.
    assert (share - 0.25).abs().max() < 0.037


def test_too_few_images_for_a_batch(data):
    with pytest.raises(UserError, match="fewer than --batch-size 500"):
        DeviceBatches(data, "train", Config(batch_size=500), torch.device("cpu"))


def test_images_that_do_not_fit_are_read_from_their_file_and_are_the_same(data, monkeypatch):
    resident = batches(data)
    monkeypatch.setattr(module, "_RESIDENT_BYTES", 1000)
    mapped = batches(data)
    assert isinstance(resident.store, module.ResidentImages) and isinstance(mapped.store, module.MappedImages)
    for expected, found in zip(draw_epoch(resident), draw_epoch(mapped), strict=True):
        assert torch.equal(expected.images, found.images)
