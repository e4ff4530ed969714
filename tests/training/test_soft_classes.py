"""Training on shares of the classes: what the networks are told, and what the discriminator is held against."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from config_physics import MORPHOLOGY_NAMES, Config
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.writing import DatasetWriter
from galaxies.training.fitting import fit_to_data
from tests.conftest import make_trainer, render_galaxies

COUNT = 48
SHARES = np.random.default_rng(5).dirichlet(np.ones(4), COUNT)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    images, names = render_galaxies(COUNT)
    columns = {f"class_share_{name}": SHARES[:, k] for k, name in enumerate(MORPHOLOGY_NAMES)}
    values = {name: np.linspace(0.1, 0.5, COUNT) for name in ("size", "brightness", "ellipticity", "redshift")}
    out = tmp_path_factory.mktemp("shares") / "d"
    with DatasetWriter(out, 64, 0.5, {}, extra_columns=tuple(columns)) as writer:
        writer.append(images, [f"g{k}" for k in range(COUNT)], names, values | columns)
    return PreparedDataset.open(out)


@pytest.mark.parametrize("family", [{"class_weight": 1.0}, {"diffusion": True, "unet_blocks": 1}])
def test_the_networks_are_told_the_shares(shared, tmp_path, family):
    trainer = make_trainer(shared, tmp_path, soft_classes=True, batch_size=8, **family)
    rows = shared.rows("train")
    expected = torch.from_numpy(SHARES[rows]).float()
    torch.testing.assert_close(trainer.batches.condition[:, :4], expected, atol=1e-5, rtol=0)
    batch = trainer.batches.next_batch()
    assert ((batch.condition[:, :4] > 0).sum(1) > 1).all()
    plain = make_trainer(shared, tmp_path / "plain", batch_size=8, **family)
    assert torch.equal(plain.batches.condition[:, :4].sum(1), torch.ones(len(rows)))
    assert plain.batches.condition[:, :4].max(1).values.min() == 1


def test_the_discriminator_reads_shares(shared, tmp_path):
    learner = make_trainer(shared, tmp_path, soft_classes=True, batch_size=8, class_weight=1.0).learner
    batch = make_trainer(shared, tmp_path / "b", soft_classes=True, batch_size=8).batches.next_batch()
    readings = torch.randn(8, len(learner.config.attributes) + 4, generator=torch.Generator().manual_seed(0))
    logits = readings[:, -4:].double()
    shares = batch.condition[:, :4].double()
    expected = -(shares * (logits - logits.logsumexp(1, keepdim=True))).sum(1).mean()
    assert learner.entropy(readings, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_run_on_shares_trains_and_draws(shared, tmp_path):
    trainer = make_trainer(shared, tmp_path, soft_classes=True, batch_size=8, epochs=1, pretrain_epochs=1)
    trainer.train()
    assert trainer.state_dict()["config"]["soft_classes"] is True


def test_data_without_shares_is_refused_before_the_run(data):
    with pytest.raises(UserError, match="has no column class_share_spiral, the share of a class, which --soft-classes"):
        fit_to_data(Config(soft_classes=True), data, ())
