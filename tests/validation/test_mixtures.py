"""Reports of runs on shares of classes: what is asked for, and how the judge's shares follow it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from benchmarks.serving import write_untrained
from config_physics import MORPHOLOGY_NAMES, Config
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.writing import DatasetWriter
from galaxies.generation.requests import requests_like_test
from galaxies.generation.sampler import GalaxySampler
from galaxies.validation import evaluation, subject
from galaxies.validation.agreement import agreement_of_shares
from galaxies.validation.report.cells import LeftOut
from galaxies.validation.report.control import Mixtures
from galaxies.validation.report.page import build_page
from galaxies.validation.report.report_file import from_plain, to_plain
from tests.conftest import render_galaxies

COUNT = 300
SHARES = np.random.default_rng(5).dirichlet(np.ones(4), COUNT)


class Brightness:
    """A judge that knows no class, but calls a galaxy the more a spiral the brighter its picture is, else a merger."""

    attributes = ("size",)
    card = {"galaxies": 0}  # noqa: RUF012

    @classmethod
    def of_dataset(cls, data, device="auto"):
        return cls()

    def read(self, images):
        return torch.full((len(images), 1), 0.1)

    def classify(self, images):
        bright = images.float().mean((1, 2, 3)) / 255
        none = torch.zeros_like(bright)
        return torch.stack([bright, none, 1 - bright, none], 1)

    def features(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


def write_data(out, with_shares):
    images, names = render_galaxies(COUNT)
    columns = {f"class_share_{name}": SHARES[:, k] for k, name in enumerate(MORPHOLOGY_NAMES)} if with_shares else {}
    values = {name: np.linspace(0.1, 0.5, COUNT) for name in ("size", "brightness", "ellipticity", "redshift")}
    with DatasetWriter(out, 64, 0.5, {}, extra_columns=tuple(columns)) as writer:
        writer.append(images, [f"g{k}" for k in range(COUNT)], names, values | columns)
    return PreparedDataset.open(out)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shares")
    return {name: write_data(folder / name, name == "votes") for name in ("votes", "plain")}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("soft") / "latest.pt"
    write_untrained(path, Config(width=4, latent_dim=8, soft_classes=True))
    return path


def evaluated(checkpoint, data, told=None):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "Judge", Brightness)
        if told is not None:
            inner = GalaxySampler.draw
            patch.setattr(GalaxySampler, "draw", lambda *a, **k: told.append(a[6]) or inner(*a, **k))
        return evaluation.evaluate(checkpoint, data.path, 60, 0, "cpu", steps=1)


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def found(checkpoint, datasets, told):
    return evaluated(checkpoint, datasets["votes"], told)


def test_shares_of_each_class_are_held_against_each_other():
    rng = np.random.default_rng(1)
    asked = rng.dirichlet(np.ones(3), 50)
    judged = np.stack([asked[:, 0], 0.5 * asked[:, 1] + 0.2, 1 - asked[:, 2]], 1)
    found = agreement_of_shares(asked, judged, 0, ("a", "b", "c"))
    assert found["a"].mae.value == 0 and found["a"].spearman.value == pytest.approx(1)
    assert found["b"].mae.value == pytest.approx(np.abs(0.2 - 0.5 * asked[:, 1]).mean())
    assert found["b"].spearman.value == pytest.approx(1)
    assert found["c"].mae.value == pytest.approx(np.abs(1 - 2 * asked[:, 2]).mean())
    assert found["c"].spearman.value == pytest.approx(-1)
    mean = (found["b"].mae.value + found["c"].mae.value) / 3
    assert Mixtures.mean_error(found) == pytest.approx(mean)
    few = agreement_of_shares(asked[:19], judged[:19], 0, ("a", "b", "c"))
    assert isinstance(few["a"], LeftOut) and Mixtures.mean_error(few) is None


def test_test_galaxies_are_asked_for_with_their_own_shares(datasets):
    data = datasets["votes"]
    rows = data.rows("test")
    requests = requests_like_test(data, ("size",), len(rows), 3, mixed=True)
    # Class, values and shares are those of one galaxy, and each is asked for once.
    apart = np.abs(requests.shares.numpy()[:, None] - SHARES[rows][None]).max(2)
    chosen = rows[apart.argmin(1)].tolist()
    assert apart.min(1).max() < 1e-5 and sorted(chosen) == rows.tolist()
    assert requests.classes.tolist() == data.classes(np.array(chosen)).tolist()
    np.testing.assert_allclose(requests.values[:, 0], np.linspace(0.1, 0.5, COUNT)[chosen], rtol=1e-6)
    assert requests_like_test(data, ("size",), 5, 3).shares is None
    assert data.has_shares and not datasets["plain"].has_shares
    with pytest.raises(UserError, match="has no column class_share_spiral"):
        requests_like_test(datasets["plain"], ("size",), 5, 3, mixed=True)


def test_the_report_says_how_the_shares_follow(found, told, datasets):
    mixtures, data = found.report.control.mixtures, datasets["votes"]
    drawn = torch.cat([shares for shares in told if shares is not None])
    assert len(drawn) == found.report.counts.test == 30 and (drawn > 0).sum(1).min() == 4
    assert any(shares is None for shares in told)  # uniform requests are for whole classes
    judged = Brightness().classify(found.pictures.galaxies.test.images)
    for k, name in ((0, "spiral"), (2, "merger")):
        asked, seen = drawn[:, k].double().numpy(), judged[:, k].double().numpy()
        assert mixtures.test[name].mae.value == pytest.approx(np.abs(asked - seen).mean(), rel=1e-5)
        assert mixtures.test[name].spearman.value == pytest.approx(spearmanr(asked, seen)[0], abs=1e-6)
    real = found.pictures.galaxies.real
    seen = Brightness().classify(real.images)[:, 0].double().numpy()
    where = [int((data.images[data.rows("test")] == image.numpy()).all((1, 2, 3)).argmax()) for image in real.images]
    asked = SHARES[data.rows("test")][where][:, 0].astype(np.float32)
    assert mixtures.real["spiral"].mae.value == pytest.approx(np.abs(asked - seen).mean(), rel=1e-5)
    assert mixtures.real["spiral"].spearman.value == pytest.approx(spearmanr(asked, seen)[0], abs=1e-6)
    assert mixtures.test["elliptical"].spearman.value is None  # the judge sees none at all


def test_the_page_shows_them_beside_the_tables_of_one_class_a_galaxy(found):
    page = build_page(found.report, {})
    assert "<h3>Shares of the classes</h3>" in page and "<h3>Class</h3>" in page
    assert page.count("requested, judged") == 2
    value = found.report.control.mixtures.test["spiral"].mae.value
    assert f"{value:.3f} <small class=interval>" in page
    figures = dict(found.report.figures())
    assert figures["shares of the classes, generated: mean absolute difference"] == pytest.approx(
        np.mean([cell.mae.value for cell in found.report.control.mixtures.test.values()])
    )
    plain = json.loads(json.dumps(to_plain(found.report)))
    assert from_plain(plain) == found.report
    old = {**plain, "format_version": 7, "control": {k: v for k, v in plain["control"].items() if k != "mixtures"}}
    read = from_plain(old)
    assert read.control.mixtures is None and read.format_version == 8
    assert "Shares of the classes" not in build_page(read, {})
    assert "shares of the classes, generated: mean absolute difference" not in dict(read.figures())


def test_a_dataset_without_shares_is_said(checkpoint, datasets):
    told = []
    found = evaluated(checkpoint, datasets["plain"], told)
    assert all(shares is None for shares in told)
    assert isinstance(found.report.control.mixtures, LeftOut)
    assert "this dataset tells none: whole classes were asked for" in build_page(found.report, {})
