"""The entry scripts as a user runs them: galaxy.py, resume_training.py, generate_from_checkpoint.py."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import galaxy
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.measure import photometry
from galaxies.storage.checkpoint import load_checkpoint, save_checkpoint
from tests.conftest import ROOT, TINY, fork_script, run_script

SCRIPTS = ("galaxy.py", "resume_training.py", "generate_from_checkpoint.py", "prepare_data.py")


def assert_one_sentence(result: subprocess.CompletedProcess[str], text: str) -> None:
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert text in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def read_catalogue(folder) -> list[dict[str, str]]:
    with (folder / "catalogue.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def checkpoint(trained):
    return trained / "checkpoints/tiny/latest.pt"


@pytest.fixture
def generate(checkpoint, tmp_path):
    def run(*options, checkpoint=checkpoint):
        return fork_script("generate_from_checkpoint.py", "--checkpoint", checkpoint, *options, cwd=tmp_path)

    return run


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_needs_no_torch(script):
    code = (
        "import sys, runpy; sys.modules['torch'] = None; "
        f"sys.argv = ['{script}', '--help']; runpy.run_path('{script}', run_name='__main__')"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert f"python {script}" in result.stdout


# galaxy.py


def test_dry_run_without_data_renders_some_and_writes_nothing(tmp_path, monkeypatch, capsys):
    for name in ("work", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(galaxy, "_SIMULATED_FOR_A_TRIAL", 64)  # instead of 512
    galaxy.main(["--dry-run", *TINY])
    printed = capsys.readouterr().out
    (line,) = (line for line in printed.splitlines() if "simulated galaxies" in line)
    assert line.startswith("no prepared dataset under data/: rendering ")
    assert "nothing was written" in printed
    assert list((tmp_path / "work").iterdir()) == []
    assert list((tmp_path / "temporary").glob("galaxy-*")) == []


def test_without_data_it_trains_on_a_mock_survey_that_stays(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(galaxy, "_SIMULATED", {"cpu": 64, "cuda": 64})
    options = [*TINY, "--pretrain-epochs", "1", "--epochs", "1"]
    galaxy.main(options)
    assert "rendering 64 simulated galaxies" in capsys.readouterr().out
    data = PreparedDataset.open(tmp_path / "data/simulated")
    assert data.manifest["command_line"] == "prepare_data.py simulated --count 64 --seed 0 --out data/simulated"
    assert load_checkpoint(tmp_path / "checkpoints/simulated-1/latest.pt")["config"]["data"] == "data/simulated"
    before = (tmp_path / "data/simulated/manifest.json").read_bytes()
    galaxy.main([*options, "--dry-run"])  # it is the only dataset now
    assert "rendering" not in capsys.readouterr().out
    assert (tmp_path / "data/simulated/manifest.json").read_bytes() == before


def test_mistakes_are_found_before_anything_is_rendered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(galaxy, "simulate", lambda *_: pytest.fail("rendered first"))
    with pytest.raises(UserError, match="epochs is -1"):
        galaxy.main(["--epochs", "-1"])


def test_dry_run_writes_nothing(dataset_path, tmp_path):
    result = run_script("galaxy.py", "--data", dataset_path, "--dry-run", *TINY, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "dry run" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_dry_run_leaves_an_existing_run_alone(trained, dataset_path):
    before = {p.name: p.read_bytes() for p in (trained / "checkpoints/tiny").iterdir()}
    result = fork_script("galaxy.py", "--data", dataset_path, "--run", "tiny", "--dry-run", *TINY, cwd=trained)
    assert result.returncode == 0, result.stderr
    assert {p.name: p.read_bytes() for p in (trained / "checkpoints/tiny").iterdir()} == before


def test_run_name_is_made_from_any_folder_name(dataset_path, tmp_path):
    shutil.copytree(dataset_path, tmp_path / "my data (1)")
    result = fork_script("galaxy.py", "--data", "my data (1)", "--dry-run", *TINY, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "run=my_data_1_-1" in result.stdout


def test_quick_setting_on_a_cpu_says_what_it_chose(dataset_path, tmp_path):
    options = ["--data", dataset_path, "--device", "cpu", "--dry-run", "--batch-size", 16]
    result = fork_script("galaxy.py", *options, cwd=tmp_path)
    assert "recipe cpu, for two CPU cores and ten minutes: --width 32 --pretrain-epochs" in result.stdout
    assert "what came of it where it was measured: ellipticity within" not in result.stdout  # of another batch size
    assert "others: --recipe laptop, datacenter, full" in result.stdout


@pytest.mark.parametrize("recipe", ["full", "laptop"])
def test_another_recipe_than_that_of_the_machine(dataset_path, tmp_path, recipe):
    options = ["--data", dataset_path, "--device", "cpu", "--dry-run", "--recipe", recipe, "--batch-size", 16]
    result = fork_script("galaxy.py", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    epochs = {"full": "epochs=150", "laptop": "epochs=450"}[recipe]  # so few galaxies get three times the defaults
    assert epochs in result.stdout and "width=64" in result.stdout and f"recipe={recipe}" in result.stdout
    assert ("recipe laptop, for a GPU of 8 GB" in result.stdout) == (recipe == "laptop")


def test_paper_recipe_is_never_shortened(dataset_path, tmp_path):
    options = ["--data", dataset_path, "--device", "cpu", "--recipe", "paper", "--dry-run", "--attributes", "size"]
    options += ["--batch-size", 16]
    result = fork_script("galaxy.py", *options, cwd=tmp_path)
    assert "--recipe" not in result.stdout
    assert "epochs=150" in result.stdout and "width=64" in result.stdout


def test_existing_run_is_not_overwritten(trained, dataset_path):
    before = (trained / "checkpoints/tiny/latest.pt").read_bytes()
    result = fork_script("galaxy.py", "--data", dataset_path, "--run", "tiny", *TINY, cwd=trained)
    assert_one_sentence(result, "run tiny exists: go on with resume_training.py --run tiny")
    assert (trained / "checkpoints/tiny/latest.pt").read_bytes() == before


@pytest.mark.parametrize(
    "options, text",
    [
        (["--data", "nowhere"], "nowhere holds no prepared dataset"),
        (["--attributes", "mass"], "unknown attribute 'mass'"),
        (["--attributes", "stellar_mass"], "no values of 'stellar_mass'"),
        (["--batch-size", "5000"], "fewer than --batch-size 5000"),
        (["--epochs", "-1"], "epochs is -1: it must lie between 1 and"),
        (["--device", "cuda:77"], "device 'cuda:77' cannot be used here"),
        (["--device", "gpu"], "device 'gpu' cannot be used here"),
    ],
)
def test_mistakes_are_one_sentence(dataset_path, tmp_path, options, text):
    data = [] if "--data" in options else ["--data", dataset_path]
    assert_one_sentence(fork_script("galaxy.py", *data, *options, cwd=tmp_path), text)
    assert list(tmp_path.iterdir()) == []


# resume_training.py


def test_resuming_a_finished_run_asks_for_more_epochs(trained):
    assert_one_sentence(run_script("resume_training.py", "--run", "tiny", cwd=trained), "give a larger --epochs")


def test_resuming_an_unknown_run(tmp_path):
    assert_one_sentence(fork_script("resume_training.py", "--run", "none", cwd=tmp_path), "there is no checkpoint")


def test_resuming_needs_one_of_run_and_checkpoint(tmp_path):
    assert_one_sentence(fork_script("resume_training.py", cwd=tmp_path), "one of the arguments --run --checkpoint")


def test_resuming_refuses_other_data(trained, tmp_path):
    from tests.conftest import write_dataset

    other = write_dataset(tmp_path / "other", 160, seed=7)
    result = fork_script("resume_training.py", "--run", "tiny", "--epochs", 3, "--data", other, cwd=trained)
    assert_one_sentence(result, "is not the dataset that this run was trained on")


# generate_from_checkpoint.py


def test_second_call_leaves_nothing_of_the_first(generate, tmp_path):
    generate("--morphology", "spiral", "--count", 3, "--format", "png,npz", "--out", "g")
    (tmp_path / "g/images/mine.png").write_bytes(b"of the user")
    generate("--morphology", "spiral", "--count", 1, "--out", "g")
    assert {p.name for p in (tmp_path / "g").iterdir()} == {"grid.png", "images", "catalogue.csv"}
    assert {p.name for p in (tmp_path / "g/images").iterdir()} == {"galaxy_00000.png", "mine.png"}


def test_checkpoint_from_before_the_generator_is_refused(generate, trained, tmp_path):
    state = load_checkpoint(trained / "checkpoints/tiny/epoch_0001.pt")
    save_checkpoint(tmp_path / "early.pt", {**state, "epoch": 0, "step": 0})
    result = generate("--morphology", "spiral", checkpoint=tmp_path / "early.pt")
    assert_one_sentence(result, "was saved before the generator's training")


def test_checkpoint_with_other_attribute_ranges_is_refused(generate, trained, tmp_path):
    state = load_checkpoint(trained / "checkpoints/tiny/epoch_0001.pt")
    state["attributes"][0]["high"] = 0.5
    save_checkpoint(tmp_path / "other.pt", state)
    result = generate("--morphology", "spiral", checkpoint=tmp_path / "other.pt")
    assert_one_sentence(result, "defines the attribute size differently")


def test_generated_files_and_catalogue(generate, tmp_path):
    result = generate(
        "--morphology", "edge_on", "--ellipticity", 0.7, "--count", 5, "--format", "png,npz,fits", "--out", "g"
    )
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "g"
    assert {p.name for p in folder.iterdir()} == {"grid.png", "images", "images.npz", "catalogue.csv"}
    rows = read_catalogue(folder)
    assert len(rows) == 5
    assert [int(r["seed"]) for r in rows] == list(range(5))
    assert {r["morphology"] for r in rows} == {"edge-on"}
    assert [float(r["requested_ellipticity"]) for r in rows] == pytest.approx([0.7] * 5)
    # A network of seconds' training may draw nothing that can be measured: then the cell is empty and the flag says so.
    for row in rows:
        found = not int(row["flag"]) & photometry.NO_SOURCE
        assert (row["measured_ellipticity"] != "") == found
        assert not found or 0 <= float(row["measured_ellipticity"]) <= 1
    with np.load(folder / "images.npz") as archive:
        images = archive["images"]
    for k, row in enumerate(rows):
        picture = np.asarray(Image.open(folder / "images" / f"{row['file']}.png"))
        assert np.array_equal(picture.transpose(2, 0, 1), images[k])


def test_fits_holds_the_planes_and_the_condition(generate, tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    generate("--morphology", "spiral", "--size", 0.12, "--count", 1, "--seed", 42, "--format", "fits,npz", "--out", "g")
    with fits.open(tmp_path / "g/images/galaxy_00000.fits", checksum=True) as file:
        header, cube = file[0].header, file[0].data
    assert (header["MORPHOL"], header["SEED"], header["ATTR1"]) == ("spiral", "42", "size")
    assert header["REQ1"] == pytest.approx(0.12)
    assert header["BUNIT"] == "display"
    with np.load(tmp_path / "g/images.npz") as archive:
        assert np.array_equal(cube[:, ::-1], archive["images"][0])


def test_pictures_say_what_they_are_and_are_called_so(generate, tmp_path):
    common = ["--morphology", "spiral", "--size", 0.12, "--count", 2, "--seed", 42]
    generate(*common, "--names", "requests", "--out", "told")
    generate(*common, "--out", "numbered")
    names = ["spiral_size-0.12_seed-42_gan", "spiral_size-0.12_seed-43_gan"]
    assert [row["file"] for row in read_catalogue(tmp_path / "told")] == names
    with Image.open(tmp_path / "told/images" / f"{names[1]}.png") as picture:
        texts = picture.text
    assert texts["Title"] == "Synthetic galaxy: spiral, seed 43" and texts["Model"].startswith("GAN, run tiny")
    assert texts["requested size"] == "0.12 frame widths" and texts["Set by user"] == "size"
    assert "not" in texts["Description"] and "Creation Time" not in texts  # the same bytes at any time
    numbered = (tmp_path / "numbered/images/galaxy_00001.png").read_bytes()
    assert (tmp_path / "told/images" / f"{names[1]}.png").read_bytes() == numbered
    with Image.open(tmp_path / "told/grid.png") as grid:
        assert grid.text["Title"] == "2 synthetic galaxies" and grid.text["Software"] == texts["Software"]
    result = generate(*common, "--names", "requests", "--shard-size", 1, "--out", "shards")
    assert_one_sentence(result, "--names is for images of which each has a file of its own")


def test_image_depends_on_its_own_seed_alone(generate, tmp_path):
    common = ["--morphology", "spiral", "--size", 0.1, "--brightness", 0.3, "--ellipticity", 0.2, "--redshift", 0.05]
    generate(*common, "--count", 5, "--seed", 10, "--out", "many")
    generate(*common, "--count", 1, "--seed", 13, "--out", "one")
    one, many = (tmp_path / p for p in ("one/images/galaxy_00000.png", "many/images/galaxy_00003.png"))
    assert one.read_bytes() == many.read_bytes()


def test_drawn_attributes_depend_on_the_seed_too(generate, tmp_path):
    generate("--morphology", "merger", "--count", 4, "--out", "a")
    generate("--morphology", "merger", "--count", 2, "--seed", 2, "--out", "b")
    columns = [c for c in read_catalogue(tmp_path / "a")[0] if c != "file"]
    pick = lambda folder: [[row[c] for c in columns] for row in read_catalogue(tmp_path / folder)]  # noqa: E731
    assert pick("a")[2:] == pick("b")


def test_requests_from_a_csv(generate, tmp_path):
    (tmp_path / "wanted.csv").write_text("morphology,size,seed\nspiral,0.12,7\nelliptical,,\nedge_on,0.10,7\n")
    result = generate("--requests", "wanted.csv", "--out", "g", "--seed", 100)
    assert result.returncode == 0, result.stderr
    rows = read_catalogue(tmp_path / "g")
    assert [(r["morphology"], int(r["seed"]), r["set_by_user"]) for r in rows] == [
        ("spiral", 7, "size"),
        ("elliptical", 101, ""),
        ("edge-on", 7, "size"),
    ]


def test_unsupported_request_is_generated_with_a_warning(generate, tmp_path):
    result = generate("--morphology", "spiral", "--size", 0.45, "--count", 2, "--out", "g")
    assert result.returncode == 0
    assert result.stderr.startswith("warning: size 0.45 is outside the range 0.")
    assert [r["supported"] for r in read_catalogue(tmp_path / "g")] == ["False", "False"]


@pytest.mark.parametrize(
    "options, text",
    [
        ([], "say which galaxies: --morphology"),
        (["--morphology", "ring"], "unknown morphology 'ring'"),
        (["--morphology", "spiral", "--size", "big"], "size is 'big': it takes a number from"),
        (
            ["--morphology", "spiral", "--size", "nan"],
            "size is 'nan': it takes a number from 0.001 to 0.5 frame widths",
        ),
        (["--morphology", "spiral", "--size", "-1e300"], "size is '-1e300': it takes a number from 0.001"),
        (["--morphology", "spiral", "--color", "1"], "color is unknown to this checkpoint: it knows size, brightness"),
        (["--morphology", "spiral", "--count", "0"], "count is '0': it takes a whole number from 1 to 100000000"),
        (
            ["--morphology", "spiral", "--seed", "-1"],
            "seed is '-1': it takes a whole number from 0 to 9223372036754775807",
        ),
        (["--morphology", "spiral", "--format", "gif"], "--format gif: choose from png, npz, fits"),
        (["--requests", "no.csv"], "no.csv does not exist"),
        (["--requests", "no.csv", "--count", "3"], "--requests lists every image"),
    ],
)
def test_wrong_requests_are_one_sentence(generate, tmp_path, options, text):
    assert_one_sentence(generate(*options), text)
    assert not (tmp_path / "generated").exists()


@pytest.mark.parametrize(
    "content, text",
    [
        ("size\n0.1\n", "has no column morphology: it has size"),
        ("morphology\n", "has a header and no row"),
        ("morphology,mass\nspiral,3\n", "row 1: 'mass' is unknown to this checkpoint"),
        ("morphology,size\nspiral,0.1\nspiral,wide\n", "row 3: size is 'wide': it takes a number from"),
        ("morphology,size\nring,0.1\n", "row 2: unknown morphology 'ring'"),
        ("morphology,seed\nspiral,1.5\n", "row 2: "),
        ("", "wanted.csv is empty"),
    ],
)
def test_wrong_request_files_are_one_sentence(generate, tmp_path, content, text):
    (tmp_path / "wanted.csv").write_text(content)
    assert_one_sentence(generate("--requests", "wanted.csv"), text)


def test_damaged_checkpoint_is_one_sentence(generate, checkpoint, tmp_path):
    content = bytearray(checkpoint.read_bytes())
    middle = len(content) // 2
    # More than the 64 bytes that may pad a record and hold nothing.
    content[middle : middle + 100] = bytes(byte ^ 255 for byte in content[middle : middle + 100])
    (tmp_path / "bad.pt").write_bytes(content)
    assert_one_sentence(generate("--morphology", "spiral", checkpoint=tmp_path / "bad.pt"), "damaged")


def test_missing_checkpoint_is_one_sentence(generate, tmp_path):
    assert_one_sentence(generate("--morphology", "spiral", checkpoint=tmp_path / "no.pt"), "there is no checkpoint")


def test_without_a_checkpoint_the_newest_run_draws(trained, tmp_path):
    options = ["--morphology", "spiral", "--count", 1, "--out", tmp_path / "out"]
    result = fork_script("generate_from_checkpoint.py", *options, cwd=tmp_path)
    assert_one_sentence(result, "there is no checkpoint in checkpoints/: train one with galaxy.py")
    result = run_script("generate_from_checkpoint.py", *options, cwd=trained)
    assert result.returncode == 0, result.stderr
    assert f"from {Path('checkpoints/tiny/latest.pt')}" in result.stdout
    assert (tmp_path / "out" / "catalogue.csv").is_file()
