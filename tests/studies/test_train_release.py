"""The release's training: what each family is asked for, what is kept, and how failures end."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from galaxies.command_line import Parser, add_config_options, config_from_options
from galaxies.common.errors import UserError
from galaxies.compute.device import Engine
from galaxies.datasets.prepared import PreparedDataset
from galaxies.recipes import MACHINES
from galaxies.storage.checkpoint import save_checkpoint
from studies import runs as script_runs
from studies import train_release
from tests.validation.reports import whole
from tests.validation.test_targets import REPORT


@pytest.fixture
def calls(monkeypatch):
    """Let the scripts leave what they would leave, without the work; return what was asked of them."""
    made = []

    def call(out, run, script, options):
        words = [str(word) for word in options]
        made.append((run, script, words))
        if script == "galaxy.py":
            epochs = int(words[words.index("--epochs") + 1])
            state = {"phase": "generator", "epoch": epochs, "config": {"epochs": epochs}, "x": torch.zeros(1)}
            save_checkpoint(out / "checkpoints" / run / "latest.pt", state)
        elif script == "evaluate.py":
            (out / "reports" / run).mkdir(parents=True)
            (out / "reports" / run / "report.json").write_text(json.dumps(whole(REPORT)))

    monkeypatch.setattr(script_runs, "call", call)
    return made


def run(dataset_path, folder, *options):
    where = ["--data", dataset_path, "--credit", "the makers", "--out", folder / "o", "--released", folder / "r"]
    train_release.main([*map(str, where), *map(str, options)])


@pytest.mark.parametrize("preset", train_release.PRESETS)
@pytest.mark.parametrize("family", train_release.FAMILIES)
def test_families_are_settings_that_galaxy_py_takes(family, preset):
    parser = Parser()
    add_config_options(parser)
    recipe = train_release.FAMILIES[family][preset]
    config = config_from_options(parser.parse_args(recipe.options.split()))
    assert config.diffusion == (family == "diffusion")
    # A machine's recipe changes nothing of it.
    given = {*recipe.options.split(), "--batch-size", "--pretrain-epochs", "--epochs"}
    assert {f"--{name.replace('_', '-')}" for name in MACHINES["cpu"].settings[config.family]} <= given


def test_each_family_is_trained_validated_and_released(dataset_path, tmp_path, calls, capsys):
    run(dataset_path, tmp_path, "--scale", 0.01, "--count", 40)
    assert [(name, script) for name, script, _ in calls] == [
        (family, script)
        for family in ("gan", "diffusion")
        for script in ("galaxy.py", "evaluate.py", "release_checkpoint.py")
    ]
    given = calls[0][2]
    # A hundredth of 20,000 steps in epochs of the 4 whole batches of 32 among the fixture's training galaxies.
    assert given[given.index("--epochs") + 1] == "50"
    assert "--balanced" in given and given[given.index("--run") + 1] == "gan"
    released = calls[2][2]
    assert released[released.index("--out") + 1] == str(tmp_path / "r/gan")
    assert released[released.index("--credit") + 1] == "the makers"
    assert released[released.index("--checkpoint") + 1] == str(tmp_path / "o/checkpoints/gan/latest.pt")
    assert capsys.readouterr().out.count("| ellipticity, photometry: MAE | ≤ 0.05 | 0.06 | **missed** |") == 2


def test_what_is_finished_is_kept(dataset_path, tmp_path, calls):
    run(dataset_path, tmp_path, "--families", "gan")
    calls.clear()
    run(dataset_path, tmp_path)
    assert [(name, script) for name, script, _ in calls] == [
        ("gan", "release_checkpoint.py"),
        ("diffusion", "galaxy.py"),
        ("diffusion", "evaluate.py"),
        ("diffusion", "release_checkpoint.py"),
    ]


def test_failures_end_in_one_sentence(dataset_path, tmp_path):
    with pytest.raises(UserError, match="--scale is 0: it must lie between"):
        run(dataset_path, tmp_path, "--scale", 0)
    (tmp_path / "o").write_text("")
    with pytest.raises(UserError, match=r"o is a file: name another folder with --out"):
        run(dataset_path, tmp_path)


@pytest.mark.parametrize("change", [("--scale", 2), ("--count", 50), ("--preset", "gpu")])
def test_what_is_kept_was_made_as_asked(dataset_path, tmp_path, calls, change):
    run(dataset_path, tmp_path, "--families", "gan")
    with pytest.raises(UserError, match=f"was begun with another {change[0][2:]}: choose another --out"):
        run(dataset_path, tmp_path, "--families", "gan", *change)


def test_a_gpu_has_a_preset_of_its_own_and_a_folder_keeps_to_one(dataset_path, tmp_path, calls, monkeypatch):
    cuda = SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr(Engine, "choose", lambda *_: cuda)
    run(dataset_path, tmp_path, "--families", "gan", "--device", "cuda", "--scale", 0.01)
    words = calls[0][2]
    # 360 of 36,000 steps, in epochs of the 2 whole batches of 64 among the fixture's training galaxies.
    assert [words[words.index(name) + 1] for name in ("--width", "--batch-size", "--epochs")] == ["64", "64", "180"]
    monkeypatch.undo()
    settings = json.loads((tmp_path / "o/settings.json").read_text())
    assert train_release._settings(options_of(tmp_path), tmp_path / "o", PreparedDataset.open(dataset_path)) == settings
    assert settings["preset"] == "gpu"


def options_of(folder):
    words = ["--out", folder, "--scale", "0.01", "--device", "cpu"]
    return train_release._parser().parse_args([str(word) for word in words])


def test_a_folder_that_was_begun_before_there_were_presets_goes_on(dataset_path, tmp_path, calls):
    run(dataset_path, tmp_path, "--families", "gan")
    path = tmp_path / "o/settings.json"
    settings = json.loads(path.read_text())
    assert settings.pop("preset") == "cpu"
    path.write_text(json.dumps(settings))
    run(dataset_path, tmp_path, "--families", "gan")
    with pytest.raises(UserError, match="was begun with another preset"):
        run(dataset_path, tmp_path, "--families", "gan", "--preset", "gpu")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--credit", "me"], "--data is missing"),
        (["--pack"], "--data is missing"),
        (["--data", "d"], "--credit is missing"),
        (["--minutes", "9"], "--credit is missing"),
        (["--minutes", "0"], "0 must be above 0"),
    ],
)
def test_what_is_missing_is_said(words, message):
    with pytest.raises(UserError, match=message):
        train_release.main(words)


def test_a_log_that_cannot_be_written_ends_in_one_sentence(tmp_path):
    (tmp_path / "logs").write_text("")
    with pytest.raises(UserError, match=r"gan\.log could not be written"):
        script_runs.call(tmp_path, "gan", "galaxy.py", [])
