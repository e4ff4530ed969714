"""The ablation: every arm on equally many images, finished ones kept, and the table's numbers by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from galaxies.command_line import add_config_options, config_from_options
from galaxies.common.errors import UserError
from galaxies.storage.checkpoint import save_checkpoint
from gan_model import reads_images
from studies import ablation
from studies import runs as script_runs


@pytest.fixture
def calls(monkeypatch):
    """Let the scripts leave what they would leave, without the work; return what was asked of them."""
    made = []

    def call(out, run, script, options):
        words = [str(word) for word in options]
        made.append((run, script, words))
        if script == "evaluate.py" and words[0] == "compare":
            folders, path = words[1 : words.index("--out")], Path(words[-1])
            values = [len(folder) + k for k, folder in enumerate(folders)]
            with path.open("w", newline="") as file:
                csv.writer(file).writerows(
                    [["figure", *folders], ["class accuracy, generated", *values], ["variety, all", "", *values[1:]]]
                )
        elif script == "evaluate.py":
            folder = Path(words[words.index("--out") + 1])
            folder.mkdir(parents=True)
            (folder / "report.json").write_text("{}")
        else:
            given = dict(zip(words[::2], words[1::2], strict=True)) if "--epochs" in words else {"--epochs": "9"}
            state = {
                "phase": "generator",
                "epoch": int(given["--epochs"]),
                "config": {"epochs": int(given["--epochs"])},
            }
            save_checkpoint(out / "checkpoints" / run / "latest.pt", {**state, "x": torch.zeros(1)})

    monkeypatch.setattr(script_runs, "call", call)
    return made


def run(dataset_path, out, *options):
    ablation.main(["--data", str(dataset_path), "--out", str(out), "--batch-size", "16", *map(str, options)])


@pytest.mark.parametrize("arm", ablation.ARMS)
def test_every_arm_is_a_setting_that_galaxy_py_takes(arm):
    parser = ablation.Parser()
    add_config_options(parser)
    config = config_from_options(parser.parse_args(ablation.ARMS[arm].split()))
    weights = config.physics_weight > 0, config.photometry_weight > 0, reads_images(config)
    parts = {"none": (0, 0, 0), "predictor": (1, 0, 0), "photometry": (0, 1, 0), "both": (1, 1, 0)}
    # A DCGAN's discriminator reads nothing, whatever the weight.
    expected = parts | {"regression": (0, 0, 1), "dcgan": (1, 1, 0)}
    assert weights == expected.get(arm, (1, 1, 1))


def test_all_arms_see_equally_many_images_and_the_scripts_are_called_for_each(dataset_path, tmp_path, calls, capsys):
    run(dataset_path, tmp_path, "--steps", 20, "--pretrain-steps", 1, "--seeds", 4, 5, "--arms", "both", "none")
    trained = {name: words for name, script, words in calls if script == "galaxy.py"}
    assert set(trained) == {"both-4", "none-4", "both-5", "none-5"}
    for name, words in trained.items():
        given = dict(zip(words[::2], words[1::2], strict=True))
        # Of 160 galaxies 7 batches a epoch are trained on.
        assert (given["--epochs"], given["--pretrain-epochs"], given["--batch-size"]) == ("3", "1", "16")
        assert given["--seed"] == name[-1]
        assert given.get("--physics-weight") == ("0" if name.startswith("none") else None)
    assert capsys.readouterr().out.count("| class accuracy, generated |") == 1
    result = json.loads((tmp_path / "ablation.json").read_text())
    both = result["arms"]["both"]["class accuracy, generated"]
    assert both["seeds"] == {"4": 14.0, "5": 16.0}
    assert (both["mean"], both["deviation"]) == (15.0, pytest.approx(2**0.5))
    assert result["arms"]["both"]["variety, all"]["deviation"] is None  # known for one seed
    assert "| class accuracy, generated | 15 ± 1.4 | 16 ± 1.4 |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_finished_is_kept_and_what_is_begun_goes_on(dataset_path, tmp_path, calls):
    options = ("--steps", 20, "--seeds", 1, "--arms")
    run(dataset_path, tmp_path, *options, "both")
    calls.clear()
    begun = {"phase": "predictor", "epoch": 1, "config": {"epochs": 3}}
    save_checkpoint(tmp_path / "checkpoints/none-1/latest.pt", begun)
    run(dataset_path, tmp_path, *options, "both", "none")
    assert [(name, script) for name, script, _ in calls] == [
        ("none-1", "resume_training.py"),
        ("none-1", "evaluate.py"),
        ("compare", "evaluate.py"),
    ]


@pytest.mark.parametrize("change", [("--steps", 30), ("--also", "--width 8"), ("--count", 50)])
def test_arms_of_other_settings_are_not_mixed(dataset_path, tmp_path, calls, change):
    run(dataset_path, tmp_path, "--steps", 20, "--seeds", 1, "--arms", "both")
    with pytest.raises(UserError, match=f"another {change[0][2:]}: choose another --out"):
        run(dataset_path, tmp_path, "--steps", 20, "--seeds", 1, "--arms", "both", *change)


def test_a_failing_arm_names_its_log(dataset_path, tmp_path):
    with pytest.raises(UserError, match=r"galaxy\.py failed on both-1 .*both-1\.log\): galaxy\.py: error: width is 1"):
        run(dataset_path, tmp_path, "--seeds", 1, "--arms", "both", "--also", "--width 1")
