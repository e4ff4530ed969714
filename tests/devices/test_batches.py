"""Batches on a GPU: those of a processor, and neither an epoch nor a batch begins with waiting."""

from __future__ import annotations

import torch

from config_physics import Config
from galaxies.datasets import batches as batches_module
from galaxies.datasets.batches import DeviceBatches


def test_epochs_begin_without_waiting(gpu, data):
    config = Config(batch_size=16)
    expected, batches = (DeviceBatches(data, "train", config, torch.device(kind)) for kind in ("cpu", "cuda"))
    for _ in range(2):
        found = []
        expected.start_epoch()
        if gpu is None:
            batches.start_epoch()
            found += [batches.next_batch() for _ in range(len(batches))]
        else:
            with gpu.without_waiting():
                batches.start_epoch()
                found += [batches.next_batch() for _ in range(len(batches))]
        for batch in found:
            for name, values in vars(expected.next_batch()).items():
                if name != "exposure":  # which pictures have none of
                    assert torch.equal(getattr(batch, name).cpu(), values), name
            assert batch.exposure is None


def test_streamed_images_are_those_of_the_processor(gpu, data, monkeypatch):
    config = Config(batch_size=16)
    expected = DeviceBatches(data, "train", config, torch.device("cpu"))
    monkeypatch.setattr(batches_module, "_RESIDENT_PART", 0.0)
    streamed = DeviceBatches(data, "train", config, torch.device("cuda"))
    assert isinstance(streamed.store, batches_module.StreamedImages)
    sent = []
    fetch = streamed.store._fetch
    monkeypatch.setattr(streamed.store, "_fetch", lambda chosen: sent.append(chosen) or fetch(chosen))
    for _ in range(2):
        for batches in (expected, streamed):
            batches.start_epoch()
        sent.clear()
        for number in range(len(expected)):
            assert torch.equal(expected.next_batch().images, streamed.next_batch().images.cpu())
            # Each batch is copied once: the first as it is asked for, the others while the one before is in use.
            assert len(sent) == min(number + 2, len(expected))
