"""Data, pictures and the page come from a GPU as they come from a CPU."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import generate_from_checkpoint
import prepare_data
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.sampler import GalaxySampler
from galaxies.mock_survey.writing import TRUTH_COLUMNS
from tests.devices.conftest import on_cuda


def call(script, *arguments):
    """Run a script in this process, as its command line would."""
    script.main([str(argument) for argument in arguments])


def pictures_agree(found, expected, gpu):
    """Compare 8-bit pictures: networks round otherwise on a GPU, whose layers are laid out otherwise.

    On a pretended one some pixels are rounded to the value beside; the products of a true one are added up in another
    order as well, and a step of a solver passes differences on.
    """
    found, expected = np.asarray(found, np.int16), np.asarray(expected, np.int16)
    assert found.shape == expected.shape
    largest, mean = (1, 0.01) if gpu is not None else (2, 0.05)
    assert np.abs(found - expected).max() <= largest
    assert np.abs(found - expected).mean() < mean


def test_mock_survey(tmp_path, gpu):
    for device in ("cuda", "cpu"):
        options = ["--out", tmp_path / device, "--count", 6, "--seed", 5, "--device", device]
        call(prepare_data, "simulated", *options)
    found, expected = (PreparedDataset.open(tmp_path / device) for device in ("cuda", "cpu"))
    # The noise is made on the device, by a generator of its own: other noise of the same galaxies.
    for name in (*TRUTH_COLUMNS, "redshift", "petro_r50_kpc", "total_votes"):
        assert found.catalogue[name].to_numpy() == pytest.approx(expected.catalogue[name].to_numpy(), rel=1e-3), name
    light = [data.images.astype(float).mean((1, 2, 3)) for data in (found, expected)]
    assert light[0] == pytest.approx(light[1], rel=0.1)
    assert list(found.catalogue["object_id"]) == list(expected.catalogue["object_id"])


@pytest.mark.parametrize("family", ["gan", pytest.param("diffusion", marks=pytest.mark.slow)])
def test_generating_in_every_format(untrained, tmp_path, monkeypatch, gpu, family):
    monkeypatch.setattr("galaxies.generation.answering.SHARD_SIZE", 4)
    request = ["--checkpoint", untrained[family], "--morphology", "spiral", "--size", 0.12, "--seed", 3]
    for device in ("cuda", "cpu"):
        call(
            generate_from_checkpoint,
            *request,
            "--count",
            3,
            "--format",
            "png,npz",
            "--out",
            tmp_path / device,
            "--device",
            device,
        )
        call(
            generate_from_checkpoint, *request, "--count", 6, "--out", tmp_path / f"{device}-shards", "--device", device
        )
    found, expected = (np.load(tmp_path / device / "images.npz")["images"] for device in ("cuda", "cpu"))
    pictures_agree(found, expected, gpu)
    assert len(list((tmp_path / "cuda/images").glob("*.png"))) == 3
    for number, count in ((0, 4), (1, 2)):
        shard = f"images_{number:05d}.npy"
        found, expected = (np.load(tmp_path / f"{device}-shards" / shard) for device in ("cuda", "cpu"))
        assert len(found) == count
        pictures_agree(found, expected, gpu)


def test_generating_fits(untrained, tmp_path, gpu):
    fits = pytest.importorskip("astropy.io.fits")
    request = ["--checkpoint", untrained["gan"], "--morphology", "merger", "--count", 2, "--format", "fits"]
    call(generate_from_checkpoint, *request, "--out", tmp_path / "out", "--device", "cuda")
    (first, *_) = sorted((tmp_path / "out/images").glob("*.fits"))
    assert fits.getdata(first).shape == (3, 64, 64)


SOLVERS = [
    # Those without more are drawn from in test_drawing.py, too.
    *(pytest.param({"name": name}, marks=pytest.mark.slow) for name in ("sde", "dpm", "ddpm")),
    {"name": "ddim", "guidance": 2.0},
    {"name": "dpm", "photometry": 1.0},
]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: " ".join(map(str, solver.values())))
def test_every_solver(untrained, gpu, solver):
    images = {}
    for device in ("cuda", "cpu"):
        sampler = GalaxySampler.from_checkpoint(untrained["diffusion"], device, num_steps=2, **solver)
        values = torch.full((2, len(sampler.attributes)), math.nan)
        values[:, 0] = 0.12
        images[device] = sampler.generate(torch.tensor([0, 3]), values, [5, 6])
    pictures_agree(images["cuda"], images["cpu"], gpu)


@pytest.mark.parametrize("gpu", [pytest.param("pretended", marks=pytest.mark.slow), on_cuda], indirect=True)
def test_the_page(untrained, gpu):
    pytest.importorskip("flask")
    pytest.importorskip("pydantic")
    from galaxies.serving.application import create_app
    from galaxies.serving.models import load_models

    pictures = {}
    for device in ("cuda", "cpu"):
        client = create_app(load_models(list(untrained.values()), device)).test_client()
        answer = client.get("/api/image.png?morphology=spiral&size=0.12&seed=7")
        assert answer.status_code == 200, answer.data
        pictures[device] = np.asarray(Image.open(io.BytesIO(answer.data)))
        assert client.get("/api/measure?morphology=spiral&size=0.12&seed=7").status_code == 200
    pictures_agree(pictures["cuda"], pictures["cpu"], gpu)


def test_measuring_pictures(untrained, tmp_path, gpu):
    request = ["--checkpoint", untrained["gan"], "--morphology", "spiral", "--count", 3]
    call(generate_from_checkpoint, *request, "--out", tmp_path / "out", "--device", "cuda")
    call(evaluate, "measure", *sorted((tmp_path / "out/images").glob("*.png")), "--out", tmp_path / "measured.csv")
    assert len((tmp_path / "measured.csv").read_text("utf-8").splitlines()) == 4
