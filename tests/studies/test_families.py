"""The scripts that lay generators side by side: their tables, their figure, and what they refuse."""

from __future__ import annotations

import json
import re

import pytest
from PIL import Image

from galaxies.common.errors import UserError
from galaxies.storage.checkpoint import load_checkpoint, save_checkpoint
from galaxies.validation.report.contents import Report
from studies import families, noise_schedules
from tests.conftest import ROOT, make_trainer
from tests.validation.reports import report_of


@pytest.fixture
def run_folder(trained, tmp_path):
    """A checkpoint beside metrics that were written by hand."""
    checkpoint = tmp_path / "run" / "latest.pt"
    save_checkpoint(checkpoint, load_checkpoint(trained / "checkpoints/tiny/latest.pt") | {"step": 90})
    lines = [
        {"kind": "train", "phase": "predictor", "step": 10, "images_per_s": 1.0},
        {"kind": "train", "phase": "generator", "step": 30, "images_per_s": 16.0},
        {"kind": "check", "phase": "generator", "step": 30},
        {"kind": "train", "phase": "generator", "step": 90, "images_per_s": 32.0},
        {"kind": "train", "phase": "generator", "step": 120, "images_per_s": 32.0},
    ]
    (checkpoint.parent / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return checkpoint


def test_training_time_is_that_of_the_second_phase_up_to_the_checkpoint(run_folder):
    found = families.training_of(run_folder)
    # 30 steps of 16 images at 16 images/s, and 60 at 32.
    assert found == {"training, phase 2 [min]": pytest.approx(1.0), "steps of phase 2": 90, "images a step": 16}


def report(mae: float) -> Report:
    cell = {"all": {"mae": {"value": mae}, "spearman": {"value": 0.9}, "pairs": 30}}
    plain = {
        "checkpoint": {"attributes": ["size", "redshift"], "step": 90},
        "control": {
            "attributes": {"test": {"size": {"photometry": cell}, "redshift": {}}},
            "gaming": {"test": {"size": {"ratio": 2.0, "real_ratio": 1.5}}},
            "classes": {"real": {"balanced": {"value": 0.6}}, "test": {"balanced": {"value": 0.7}}},
        },
        "realism": {
            "statistics": {"mean": {"all": {"value": 0.4, "multiple": 4.0}}},
            "features": {"judge": {"frechet": {"multiple": 1.9}, "neighbourhoods": {"precision": {"value": 0.8}}}},
            "real_or_fake": {"left_out": "too few"},
        },
        "honesty": {"copies": {"copies": {"value": 0.02}}},
        "counts": {"test": 10, "uniform": 10},
        "seconds": {"generation": 1.0},
    }
    return report_of(plain)


def test_training_time_of_a_release_is_what_its_own_file_says():
    card = (ROOT / "checkpoints/released/gan/card.md").read_text(encoding="utf-8")
    found = families.training_of(ROOT / "checkpoints/released/gan/generator.safetensors")
    steps, size = re.search(r"([\d,]+) steps of (\d+) images", card).groups()
    minutes = re.search(r"and ([\d.]+) for the generator", card)[1]
    assert found == {
        "training, phase 2 [min]": float(minutes),
        "steps of phase 2": int(steps.replace(",", "")),
        "images a step": int(size),
    }


def test_both_families_stand_in_one_table_and_on_the_page(run_folder, tmp_path, monkeypatch, capsys):
    reports = {"gan": report(0.01), "diffusion": report(0.02)}
    monkeypatch.setattr(families, "report_of", lambda checkpoint, data, out, count: reports[out.name])
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- families -->\nold\n<!-- end of families -->\nafter\n")
    options = ["--gan", run_folder, "--diffusion", run_folder, "--data", tmp_path, "--out", tmp_path / "out"]
    families.main([str(option) for option in [*options, "--page", page]])
    table = (tmp_path / "out/table.md").read_text()
    assert "| | GAN | diffusion |" in table
    assert "| Half-light radius, photometry: mean absolute error [frame widths] | 0.01 | 0.02 |" in table
    assert "| drawing [ms an image] | 50 | 50 |" in table
    assert "| a fresh network tells it from real | – | – |" in table
    assert "class as asked for, judge, balanced (on real galaxies 60%) | 0.7 | 0.7 |" in table
    assert "| training, phase 2 [min] | 1 | 1 |" in table
    assert page.read_text() == f"before\n<!-- families -->\n\n{table}\n<!-- end of families -->\nafter\n"
    assert json.loads((tmp_path / "out/table.json").read_text())["GAN"]["steps of phase 2"] == 90


def test_a_page_without_marks_is_left_alone(tmp_path):
    with pytest.raises(UserError, match="lacks the lines"):
        families.with_table("text", "table", tmp_path, "families")


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint"):
        families.report_of(tmp_path / "none.pt", tmp_path, tmp_path, 20)


def test_the_figure_of_both_schedules(data, tmp_path, trained, capsys):
    settings = {"diffusion": True, "unet_blocks": 1, "solver_steps": 2}
    paths = {}
    for name, more in {
        "document": {"noise_schedule": "linear", "diffusion_steps": 100, "solver": "ddpm"},
        "default": {},
    }.items():
        trainer = make_trainer(data, tmp_path / name, **settings, **more)
        trainer.start_phase("generator")
        trainer.take_step(10)
        paths[name] = tmp_path / f"{name}.pt"
        save_checkpoint(paths[name], trainer.state_dict())
    out = tmp_path / "figure.png"
    noise_schedules.main([f"--{name}={path}" for name, path in paths.items()] + [f"--out={out}"])
    with Image.open(out) as picture:
        assert picture.size[0] > 1000
    sampler = noise_schedules.GalaxySampler.from_checkpoint(paths["document"])
    assert noise_schedules.title(sampler) == "linear, 100 steps, ends at 0.364\ndrawn by ddpm in 2 steps"
    gan = trained / "checkpoints/tiny/latest.pt"
    with pytest.raises(UserError, match="holds no diffusion model"):
        noise_schedules.main([f"--document={gan}", f"--default={paths['default']}", f"--out={out}"])
