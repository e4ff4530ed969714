"""A run on a GPU from its start to its release: trained, resumed there and elsewhere, validated, released."""

from __future__ import annotations

import copy
import json

import pytest
import torch

import evaluate
import galaxy
import release_checkpoint
import resume_training
from galaxies.datasets.prepared import PreparedDataset
from galaxies.storage.checkpoint import load_checkpoint
from galaxies.storage.power_averages import averaged_weights, find_snapshots, write_snapshot
from galaxies.training.weight_average import PowerAverages
from galaxies.validation import feature_spaces, judge, subject
from tests.conftest import write_dataset
from tests.devices.conftest import on_cuda
from tests.test_evaluate import StandInJudge

OPTIONS = {
    "gan": ["--width", 4, "--latent-dim", 8],
    "diffusion": ["--diffusion", "--width", 8, "--unet-blocks", 1, "--unet-patch", 4, "--solver-steps", 2],
}


def call(script, *arguments):
    """Run a script in this process, as its command line would."""
    script.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """A dataset with enough test galaxies for a report."""
    return write_dataset(tmp_path_factory.mktemp("some") / "rendered", 240, seed=1)


# On a CPU's pretended device it takes minutes, most of them for the report.
@pytest.mark.parametrize("gpu", [pytest.param("pretended", marks=pytest.mark.slow), on_cuda], indirect=True)
@pytest.mark.parametrize("family", OPTIONS)
def test_a_run_from_its_start_to_its_release(some, tmp_path, monkeypatch, gpu, family, capsys):
    pytest.importorskip("scipy")
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subject, "Judge", StandInJudge)
    common = ["--batch-size", 48, "--log-every", 2, "--pretrain-epochs", 1, "--epochs", 1, "--checkpoint-every", 1]
    call(galaxy, "--data", some, "--run", "r", "--device", "cuda", *OPTIONS[family], *common)
    latest = tmp_path / "checkpoints/r/latest.pt"
    assert (tmp_path / "samples/r/epoch_0001.png").exists()
    assert load_checkpoint(latest)["step"] == 3
    call(resume_training, "--run", "r", "--epochs", 2, "--device", "cuda")
    assert load_checkpoint(latest)["step"] == 6
    assert "not to the same bits" not in capsys.readouterr().out
    call(resume_training, "--run", "r", "--epochs", 3, "--device", "cpu")  # what was trained on one goes on on any
    assert load_checkpoint(latest)["step"] == 9
    assert "saved on cuda, going on on cpu" in capsys.readouterr().out

    report = ["report", "--checkpoint", latest, "--data", some, "--count", 20, "--steps", 2]
    call(evaluate, *report, "--out", "report", "--device", "cuda")
    content = json.loads((tmp_path / "report/report.json").read_text("utf-8"))
    assert content["checkpoint"]["step"] == 9
    assert (tmp_path / "report/report.html").exists()
    call(evaluate, "compare", "report")
    release = ["--report", "report", "--data", some, "--credit", "nobody", "--out", "released"]
    call(release_checkpoint, "--checkpoint", latest, *release)
    assert (tmp_path / "released/generator.safetensors").exists()


def test_the_spaces_of_the_report(some, gpu):
    real = torch.from_numpy(PreparedDataset.open(some).images[:12].copy())
    found = []
    for device in ("cuda", "cpu"):
        spaces = feature_spaces.build_spaces(StandInJudge(), real, torch.device(device))
        found.append({space.name: space.embed(real[:6]) for space in spaces if space.name != "judge"})
    for name, features in found[0].items():
        assert features == pytest.approx(found[1][name], rel=1e-3, abs=1e-3 if gpu is not None else 0.3), name


def test_augmenting_a_classifier(some, untrained, tmp_path, gpu):
    pytest.importorskip("scipy")
    pytest.importorskip("sklearn")
    few = ["--rare", "edge-on", "--counts", 4, "--repetitions", 1, "--steps", 2, "--device", "cuda"]
    out = tmp_path / "rare.json"
    call(evaluate, "augmentation", "--checkpoint", untrained["gan"], "--data", some, *few, "--out", out)
    assert json.loads(out.read_text("utf-8"))


def test_averages_of_any_length(tmp_path, gpu):
    network = torch.nn.Linear(3, 2)
    averages = PowerAverages(network)
    for step in (1, 2):
        torch.nn.init.constant_(network.weight, step)
        averages.update(network)
        write_snapshot(tmp_path, step, averages.by_name())
    found = [
        averaged_weights(find_snapshots(tmp_path), [0.1], copy.deepcopy(network).to(device))[0.1]
        for device in ("cuda", "cpu")
    ]
    for name, value in found[1].items():
        assert found[0][name].device.type == "cuda"
        torch.testing.assert_close(found[0][name].cpu(), value)


def test_the_judge(some, monkeypatch, gpu):
    monkeypatch.setattr(judge, "_FEWEST_GALAXIES", 20)
    monkeypatch.setattr(judge, "_FEWEST_KNOWN", 20)
    data = PreparedDataset.open(some)
    content = judge.train_judge(data, torch.device("cuda"), epochs=1)
    images = torch.from_numpy(data.images[:8].copy())
    on_gpu, on_cpu = (judge.Judge(content, torch.device(device)) for device in ("cuda", "cpu"))
    for read in ("read", "classify", "features"):
        found, expected = (getattr(judge_there, read)(images) for judge_there in (on_gpu, on_cpu))
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-2, atol=1e-2)
