"""The mock survey on disk: as a prepared dataset, and in the formats of Galaxy Zoo 2, read back like the real files."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import weakref
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import prepare_data
from config_physics import ATTRIBUTES, MORPHOLOGY_NAMES
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.sources import galaxy_zoo
from galaxies.mock_survey import observation as simulation
from galaxies.mock_survey import writing as mock_survey
from galaxies.mock_survey.votes import QUESTIONS
from galaxies.mock_survey.writing import (
    TRUTH_COLUMNS,
    VOTE_COLUMNS,
    blocks_at_once,
    rendering_device,
    write_dataset,
    write_release,
)
from tests.conftest import run_script

COUNT = 16
FILES = {"gz2_hart16.csv", "gz2_filename_mapping.csv", "gz2sample.csv", "images_gz2.zip", "truth.csv"}
ENDINGS = ("count", "weight", "fraction", "weighted_fraction", "debiased", "flag")


def left_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def write(out: Path, count: int = COUNT, seed: int = 0, overwrite: bool = False):
    return write_dataset(out, count, seed, 64, "cpu", "for a test", overwrite)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Write the same galaxies as a dataset, `direct`, and through `release` as a dataset `read`."""
    folder = tmp_path_factory.mktemp("mock")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "BLOCK", COUNT)  # no more galaxies than are asked for
        write(folder / "direct")
        options = ["--count", str(COUNT), "--seed", "0", "--device", "cpu", "--allow-empty-class"]
        where = ["--as-gz2", str(folder / "release"), "--out", str(folder / "read")]
        prepare_data.main(["simulated", *options, *where])
    return folder


@pytest.fixture(scope="module")
def direct(written) -> PreparedDataset:
    return PreparedDataset.open(written / "direct", verify=True)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(simulation, "BLOCK", 16)


@pytest.fixture
def blank_pictures(monkeypatch):
    """Leave out the rendering: all pictures are black and all galaxies have a radius of one arcsecond."""

    def render(survey, kind, columns, chosen, numbers):
        side = survey.image_size
        told = {"true_half_light_radius": torch.ones(len(chosen))}
        return torch.zeros(len(chosen), 3, side, side, dtype=torch.uint8), told

    monkeypatch.setattr(simulation.MockSurvey, "_render", render)


def interrupt(monkeypatch, error: type[BaseException]) -> None:
    """Let the survey fail after its first batch."""
    batches = simulation.MockSurvey.batches

    def broken(survey, count, blocks_at_once=1):
        yield next(batches(survey, count, blocks_at_once))
        raise error

    monkeypatch.setattr(simulation.MockSurvey, "batches", broken)


# As a prepared dataset


def test_the_dataset_opens_with_its_truth_and_votes(direct):
    assert direct.images.shape == (COUNT, 3, 64, 64)
    assert direct.catalogue["morphology"].tolist() == list(MORPHOLOGY_NAMES) * (COUNT // 4)
    told = {*ATTRIBUTES} - {"ring", "odd"}  # which it draws no galaxies for
    assert {*told, "pixel_scale", *TRUTH_COLUMNS, *VOTE_COLUMNS} <= set(direct.catalogue.columns)
    for name in (*sorted(told), "pixel_scale", *TRUTH_COLUMNS, *VOTE_COLUMNS):
        known = direct.catalogue[name].notna()
        if name in ("arm_count", "bar", "bulge"):
            discs = ("spiral", "edge-on") if name == "bulge" else ("spiral",)
            assert (known == direct.catalogue["morphology"].isin(discs)).all(), name
        else:
            assert known.all() or name in ("vote_elongation", *VOTE_COLUMNS), name
    assert direct.manifest["source"] == "mock survey of seed 0"
    assert direct.manifest["rule"] == "truth"
    assert direct.manifest["command_line"] == "for a test"
    assert direct.manifest["crop"] == 0.5


def test_the_catalogue_is_the_surveys(direct, small_blocks):
    (batch,) = simulation.MockSurvey(0).batches(COUNT)
    np.testing.assert_array_equal(direct.images, batch.images)
    assert direct.catalogue["object_id"].tolist() == batch.object_ids
    for name in (*TRUTH_COLUMNS, "redshift", "petro_r50_kpc", "absolute_magnitude", "stellar_mass", "pixel_scale"):
        np.testing.assert_allclose(direct.catalogue[name], batch.truth[name], rtol=1e-6, err_msg=name)


def test_vote_attributes_lie_in_their_ranges(direct):
    for name in ("vote_count", "vote_smoothness", "vote_elongation", "random_redshift"):
        values = direct.catalogue[name].dropna()
        assert values.between(ATTRIBUTES[name].low, ATTRIBUTES[name].high).all(), name
        assert values.nunique() > 4, name
    smooth = direct.catalogue[f"{galaxy_zoo.SMOOTH}_debiased"]
    np.testing.assert_allclose(direct.catalogue["vote_smoothness"], 0.2 + 0.8 * smooth, atol=1e-6)
    for name in VOTE_COLUMNS[1:]:
        assert name.endswith("_debiased")
        assert direct.catalogue[name].between(0, 1).all()


def test_the_class_rules_can_be_applied_to_the_catalogue(direct):
    votes = direct.catalogue.rename(columns=lambda name: name.removesuffix("_debiased"))
    found = galaxy_zoo.classify(votes, "gated")
    assert (found == direct.catalogue["morphology"]).mean() >= 0.9  # of sixteen; of many, see test_votes.py


def test_other_sizes(tmp_path, small_blocks, blank_pictures):
    for size in (128, 256):
        writer = write_dataset(tmp_path / str(size), 4, 0, size, "cpu", "")
        assert PreparedDataset.open(tmp_path / str(size)).images.shape == (4, 3, size, size)
        assert writer.manifest["image_size"] == size


def test_few_galaxies_need_not_hold_every_class(tmp_path, small_blocks, blank_pictures):
    assert write(tmp_path / "a", 2).manifest["count"] == 2
    with pytest.raises(UserError, match="no image is left to write"):
        write(tmp_path / "b", 0)
    assert left_in(tmp_path) == ["a"]


def test_an_existing_dataset_is_replaced_only_if_asked(tmp_path, small_blocks, blank_pictures):
    write(tmp_path / "a", 4)
    with pytest.raises(UserError, match=r"a exists: .*--overwrite"):
        write(tmp_path / "a", 8)
    assert len(PreparedDataset.open(tmp_path / "a").images) == 4
    write(tmp_path / "a", 8, overwrite=True)
    assert len(PreparedDataset.open(tmp_path / "a").images) == 8


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_dataset_leaves_nothing(tmp_path, monkeypatch, small_blocks, blank_pictures, error):
    interrupt(monkeypatch, error)
    with pytest.raises(error):
        write(tmp_path / "a", 40)
    assert left_in(tmp_path) == []


def test_memory_does_not_grow_with_the_survey(tmp_path, monkeypatch, small_blocks, blank_pictures):
    alive: list[int] = []
    references: list[weakref.ref] = []
    append = mock_survey.DatasetWriter.append

    def watch(writer, images, *others):
        references.append(weakref.ref(images))
        alive.append(sum(reference() is not None for reference in references))
        assert len(images) <= 16
        append(writer, images, *others)

    monkeypatch.setattr(mock_survey.DatasetWriter, "append", watch)
    write(tmp_path / "a", 160)
    assert len(alive) == 10
    assert max(alive) <= 2


def test_rendering_device():
    assert rendering_device("cpu") == "cpu"
    assert rendering_device() in ("cpu", "cuda")


def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert rendering_device() == "cpu"
    with pytest.raises(UserError, match="'cuda' cannot be used here: try --device cpu"):
        rendering_device("cuda")


# In the formats of Galaxy Zoo 2


def test_the_release_has_the_real_ones_files(written):
    assert set(left_in(written / "release")) == FILES
    assert left_in(written) == ["direct", "read", "release"]


def test_header_of_the_votes(written):
    header = list(read_rows(written / "release/gz2_hart16.csv")[0])
    answers = [f"{question}_{answer}" for question, (_, given) in QUESTIONS.items() for answer in given]
    assert len(answers) == 37
    assert header[:9] == [
        "dr7objid",
        "ra",
        "dec",
        "rastring",
        "decstring",
        "sample",
        "gz2_class",
        "total_classifications",
        "total_votes",
    ]
    assert header[9:] == [f"{answer}_{ending}" for answer in answers for ending in ENDINGS]
    for known in (
        "t01_smooth_or_features_a01_smooth_count",
        "t01_smooth_or_features_a03_star_or_artifact_weight",
        "t05_bulge_prominence_a11_just_noticeable_fraction",
        "t08_odd_feature_a38_dust_lane_weighted_fraction",
        "t10_arms_winding_a29_medium_debiased",
        "t11_arms_number_a36_more_than_4_flag",
    ):
        assert known in header


def test_votes_of_the_release_add_up(written):
    votes = pd.read_csv(written / "release/gz2_hart16.csv", dtype={"dr7objid": str})
    asked = {None: votes["total_classifications"]}
    for question, (parents, answers) in QUESTIONS.items():
        counts = votes[[f"{question}_{answer}_count" for answer in answers]].to_numpy()
        fractions = votes[[f"{question}_{answer}_debiased" for answer in answers]].to_numpy()
        reached = sum(asked[parent] for parent in parents or (None,)).to_numpy()
        np.testing.assert_array_equal(counts.sum(1), reached, err_msg=question)
        np.testing.assert_allclose(fractions.sum(1), reached > 0, atol=1e-6, err_msg=question)
        np.testing.assert_allclose(fractions * reached[:, None], counts, atol=1e-4, err_msg=question)
        asked |= {answer: votes[f"{question}_{answer}_count"] for answer in answers}
    counted = votes[[name for name in votes if name.endswith("_count")]].sum(axis=1)
    np.testing.assert_array_equal(votes["total_votes"], counted)


def test_pictures_are_jpegs_of_the_real_size(written):
    mapping = read_rows(written / "release/gz2_filename_mapping.csv")
    assert list(mapping[0]) == ["objid", "sample", "asset_id"]
    with zipfile.ZipFile(written / "release/images_gz2.zip") as archive:
        assert archive.namelist() == [f"images/{row['asset_id']}.jpg" for row in mapping]
        for name in archive.namelist():
            with Image.open(io.BytesIO(archive.read(name))) as picture:
                assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (424, 424))


def test_the_truth_lies_beside(written, direct):
    truth = read_rows(written / "release/truth.csv")
    assert [row["object_id"] for row in truth] == direct.catalogue["object_id"].tolist()
    assert [row["morphology"] for row in truth] == direct.catalogue["morphology"].tolist()
    for name in ("redshift", "true_axis_ratio", "true_flux", "petro_r50_kpc", "stellar_mass", "absolute_magnitude"):
        values = [float(row[name]) for row in truth]
        np.testing.assert_allclose(values, direct.catalogue[name], rtol=1e-6, err_msg=name)
    assert {"true_half_light_radius", "petro_r50", "petro_r90", "frame_scale", "magnitude"} <= set(truth[0])


def test_what_is_read_back_is_what_was_written(written, direct):
    read = PreparedDataset.open(written / "read", verify=True)
    assert read.catalogue["object_id"].isin(direct.catalogue["object_id"]).all()
    assert len(read.catalogue) >= 0.9 * COUNT
    both = read.catalogue.merge(direct.catalogue, on="object_id", suffixes=("", "_direct"))
    assert (both["morphology"] == both["morphology_direct"]).mean() >= 0.9
    for name in ("redshift", "pixel_scale", "petro_r50_kpc", "absolute_magnitude", "stellar_mass"):
        np.testing.assert_allclose(both[name], both[f"{name}_direct"], rtol=1e-5, err_msg=name)
    # Other noise, one more resampling and real JPEG.
    for name, tolerance in (("size", 0.005), ("brightness", 0.01), ("ellipticity", 0.04), ("color", 0.08)):
        assert (both[name] - both[f"{name}_direct"]).abs().median() < tolerance, name


def test_hundreds_of_galaxies_keep_their_ids_classes_and_distances(tmp_path, blank_pictures):
    write_release(tmp_path / "a", 256, 5, "cpu")
    truth = pd.read_csv(tmp_path / "a/truth.csv", dtype={"object_id": str}).set_index("object_id")
    for rule, share in (("gated", 0.97), ("paper", 0.9)):
        catalogue = galaxy_zoo.read_catalogue(tmp_path / "a", rule)
        galaxies = catalogue.galaxies.set_index("object_id")
        assert galaxies.index.isin(truth.index).all()
        assert (galaxies["morphology"] == truth["morphology"].reindex(galaxies.index)).sum() >= share * 256
        assert catalogue.unmapped == 0
        for name in ("redshift", "frame_scale", "petro_r50_kpc", "absolute_magnitude", "stellar_mass"):
            np.testing.assert_allclose(galaxies[name], truth[name].reindex(galaxies.index), rtol=1e-5, err_msg=name)


def test_equal_surveys_make_equal_files(tmp_path, small_blocks, blank_pictures):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_release(tmp_path / name, 8, seed, "cpu")
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a/truth.csv").read_bytes() != (tmp_path / "c/truth.csv").read_bytes()


# Faults


def test_a_release_is_replaced_only_if_asked(tmp_path, small_blocks, blank_pictures):
    write_release(tmp_path / "a", 8, 0, "cpu")
    with pytest.raises(UserError, match=r"a exists: .*--as-gz2.*--overwrite"):
        write_release(tmp_path / "a", 4, 0, "cpu")
    assert len(read_rows(tmp_path / "a/truth.csv")) == 8
    write_release(tmp_path / "a", 4, 0, "cpu", overwrite=True)
    assert len(read_rows(tmp_path / "a/truth.csv")) == 4
    assert left_in(tmp_path) == ["a"]
    (tmp_path / "empty").mkdir()
    write_release(tmp_path / "empty", 4, 0, "cpu")
    assert set(left_in(tmp_path / "empty")) == FILES


@pytest.mark.parametrize("files", [["chapter1.tex"], ["truth.csv", "chapter1.tex"], ["gz2_hart16.csv"]])
def test_other_folders_are_never_replaced(tmp_path, small_blocks, blank_pictures, files):
    (tmp_path / "thesis").mkdir()
    for name in files:
        (tmp_path / "thesis" / name).write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="thesis"):
            write_release(tmp_path / "thesis", 4, 0, "cpu", overwrite)
        assert left_in(tmp_path / "thesis") == sorted(files)
    assert left_in(tmp_path) == ["thesis"]


def test_a_file_is_never_replaced(tmp_path):
    (tmp_path / "a").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="a "):
            write_release(tmp_path / "a", 4, 0, "cpu", overwrite)
    assert (tmp_path / "a").read_text() == "years of work"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_release_leaves_what_was_there(tmp_path, monkeypatch, small_blocks, blank_pictures, error):
    write_release(tmp_path / "old", 4, 0, "cpu")
    interrupt(monkeypatch, error)
    for name in ("new", "old"):
        with pytest.raises(error):
            write_release(tmp_path / name, 40, 0, "cpu", overwrite=True)
    assert left_in(tmp_path) == ["old"]
    assert len(read_rows(tmp_path / "old/truth.csv")) == 4


def test_a_failed_last_step_keeps_the_old_release(tmp_path, monkeypatch, small_blocks, blank_pictures):
    write_release(tmp_path / "a", 4, 0, "cpu")
    rename = Path.rename

    def fail_on_new(self, target):
        if ".partial-" in self.name:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_new)
    with pytest.raises((UserError, OSError), match="Input/output error"):
        write_release(tmp_path / "a", 8, 0, "cpu", overwrite=True)
    assert left_in(tmp_path) == ["a"]
    assert len(read_rows(tmp_path / "a/truth.csv")) == 4


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there, an open file and not a number tells a living process")
def test_what_a_killed_process_left_of_a_release_is_removed(tmp_path):
    finished = subprocess.Popen([sys.executable, "-c", "pass"])
    finished.wait(timeout=60)
    for name in (f".release.partial-{finished.pid}", f".release.partial-{os.getppid()}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "images_gz2.zip").write_text("half")
    write_release(tmp_path / "release", 1, 0, "cpu")
    assert {p.name for p in tmp_path.iterdir()} == {"release", f".release.partial-{os.getppid()}"}


def test_an_unwritable_place_is_a_users_mistake(tmp_path, small_blocks, blank_pictures):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="could not be written"):
        write_release(tmp_path / "file" / "a", 4, 0, "cpu")
    with pytest.raises(UserError, match="could not be written"):
        write(tmp_path / "file" / "a", 4)


def test_being_terminated_leaves_nothing_of_a_release(tmp_path, monkeypatch):
    def batches(survey, count, blocks_at_once=1):
        signal.raise_signal(signal.SIGTERM)
        yield

    def unhandled(number, frame):
        raise AssertionError("the process would have ended here")

    monkeypatch.setattr(simulation.MockSurvey, "batches", batches)
    before = signal.signal(signal.SIGTERM, unhandled)
    try:
        with pytest.raises(SystemExit) as exit_status:
            write_release(tmp_path / "a", 4, 0, "cpu")
        assert exit_status.value.code == 128 + signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is unhandled
    finally:
        signal.signal(signal.SIGTERM, before)
    assert left_in(tmp_path) == []


# prepare_data.py simulated


def test_simulated_writes_a_dataset(tmp_path, capsys, small_blocks, blank_pictures):
    prepare_data.main(["simulated", "--count", "8", "--seed", "3", "--out", str(tmp_path / "a"), "--device", "cpu"])
    assert "8 images of 64 pixels" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert manifest["command_line"].startswith("prepare_data.py simulated --count 8 --seed 3")
    assert manifest["source"] == "mock survey of seed 3"
    assert manifest["count"] == 8


def test_simulated_defaults(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(mock_survey, "write_dataset", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(prepare_data, "print_summary", lambda writer: None)
    prepare_data.main(["simulated", "--out", str(tmp_path / "a"), "--device", "cpu"])
    out, count, seed, size, device, _, overwrite, rules, allow_empty_class = asked[0]
    assert (out, count, seed, size, device, overwrite) == (tmp_path / "a", 4096, 0, 64, "cpu", False)
    assert (rules, allow_empty_class) == (None, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count", "0"], "--count: '0' is no whole number from 1"),
        (["--count", "-4"], "--count: '-4' is no whole number from 1"),
        (["--count", "many"], "--count: .*'many'"),
        (["--count", "1.5"], "--count: .*'1.5'"),
        (["--seed", "-1"], "--seed: '-1' is no whole number from 0 to 2147483647"),
        (["--seed", "2147483648"], "--seed: '2147483648' is no whole number"),
        (["--seed", "x"], "--seed: .*'x'"),
        (["--size", "100"], "--size: .*100"),
        (["--device", "abacus"], "--device: .*'abacus'"),
        (["--crop", "0.3"], "--crop"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        prepare_data.main(["simulated", *options, "--out", str(tmp_path / "a")])
    assert left_in(tmp_path) == []


def test_simulated_needs_a_place(tmp_path):
    with pytest.raises(UserError, match="--out"):
        prepare_data.main(["simulated"])


def test_a_mistake_ends_in_one_sentence(tmp_path):
    result = run_script("prepare_data.py", "simulated", "--count", 0, "--out", "a", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("prepare_data.py: error: argument --count: '0' is no whole number from 1")
    assert len(result.stderr.splitlines()) == 1
    assert left_in(tmp_path) == []


def test_a_gpu_renders_as_many_blocks_as_a_quarter_of_its_free_memory_holds(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [blocks_at_once(cpu, size) for size in (64, 128, 424)] == [1, 1, 1]
    for gigabytes, expected in ((80, 64), (8, 32), (1, 4), (0.1, 1)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, g=gigabytes: (int(g * 2**30), 2**40))
        assert blocks_at_once(cuda, 64) == expected
        assert blocks_at_once(cuda, 128) == max(1, expected // 4)
