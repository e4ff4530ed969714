"""Batches on a GPU: those of a processor, and neither an epoch nor a batch begins with waiting."""

from __future__ import annotations

import torch

from config_physics import Config
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
                assert torch.equal(getattr(batch, name).cpu(), values), name
