"""What a user does with a run of flux, from data to release, on a mock survey of a few hundred galaxies."""

from __future__ import annotations

import json

import numpy as np
import pytest

import evaluate
import galaxy
import generate_from_checkpoint
import prepare_data
import release_checkpoint
from galaxies.generation.sampler import GalaxySampler
from galaxies.validation import judge
from tests.conftest import TINY

pytest.importorskip("surveycodex")
pytest.importorskip("astropy")
pytestmark = pytest.mark.slow
ONCE = ["--pretrain-epochs", "1", "--epochs", "1"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with the dataset data/f, the runs gan and diffusion on it, and a short training of the judge."""
    folder = tmp_path_factory.mktemp("flux")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(judge.train_judge, "__defaults__", (2, *judge.train_judge.__defaults__[1:]))
        survey = ["--survey", "LSST", "--bands", "g,r,z", "--count", "420", "--seed", "1"]
        prepare_data.main(["simulated", "--kind", "flux", *survey, "--out", "data/f"])
        galaxy.main(["--data", "data/f", "--run", "gan", *TINY, *ONCE])
        options = [word for word in TINY if word not in ("--latent-dim", "8")]
        galaxy.main(["--data", "data/f", "--run", "diffusion", "--diffusion", *options, "--unet-blocks", "1", *ONCE])
        yield folder


def checkpoint_of(run):
    return ["--checkpoint", f"checkpoints/{run}/latest.pt"]


@pytest.mark.parametrize(("run", "solver"), [("gan", []), ("diffusion", ["--solver-steps", "2", "--guidance", "2"])])
def test_a_report_and_a_release(work, run, solver):
    chosen = [*checkpoint_of(run), "--data", "data/f"]
    evaluate.main(["report", *chosen, "--out", f"reports/{run}", "--count", "40", "--steps", "2", *solver])
    report = json.loads((work / f"reports/{run}/report.json").read_text())
    assert report["data"]["bands"] == ["g", "r", "z"]
    release_checkpoint.main([*chosen, "--report", f"reports/{run}", "--credit", "me", "--out", f"released/{run}"])
    card = (work / f"released/{run}/card.md").read_text(encoding="utf-8")
    assert "in nJy and magnitudes AB, in the bands g, r, z" in card and "Credit: me" in card
    sampler = GalaxySampler.from_checkpoint(work / f"released/{run}/generator.safetensors", "cpu")
    assert sampler.config.bands == ("g", "r", "z")


def test_distances_and_a_rare_class(work, capsys):
    evaluate.main(["validate", "--data", "data/f", "--out", "checks.json"])
    assert "DOES NOT GROW" not in "".join(line for line in capsys.readouterr().out.splitlines(True) if "blur" in line)
    assert set(json.loads((work / "checks.json").read_text())["spaces"]) >= {"statistics", "random"}
    few = ["--counts", "5", "--repetitions", "1", "--steps", "3", "--rare", "merger"]
    evaluate.main(["augmentation", *checkpoint_of("gan"), "--data", "data/f", *few, "--out", "rare.json"])
    assert json.loads((work / "rare.json").read_text())["rare"] == "merger"


def test_guided_diffusion_draws_other_light_of_the_same_seed(work):
    drawn = []
    options = ["--morphology", "spiral", "--set", "magnitude_r=19", "--count", "3", "--solver-steps", "3"]
    for number, guided in enumerate(([], ["--guidance", "3"], ["--photometric-guidance", "3"])):
        out = f"drawn/{number}"
        chosen = [*checkpoint_of("diffusion"), *options, "--format", "npz,fits"]
        generate_from_checkpoint.main([*chosen, "--out", out, *guided])
        with np.load(work / out / "images.npz") as archive:
            drawn.append(archive["images"])
        assert drawn[-1].shape == (3, 3, 64, 64) and np.isfinite(drawn[-1]).all()
    assert not np.allclose(drawn[0], drawn[1]) and not np.allclose(drawn[0], drawn[2])
