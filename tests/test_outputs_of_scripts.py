"""Every script and option that writes: whatever of the user's is in the way is refused, and all else stays."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import evaluate
import galaxy
import generate_from_checkpoint
import observe
import prepare_data
import release_checkpoint
from benchmarks import suite
from config_physics import MORPHOLOGY_NAMES
from galaxies.common.errors import UserError
from galaxies.common.outputs import (
    DATASET,
    FIELD_EVALUATION,
    GALAXY_ZOO,
    KINDS,
    MOCK_FIELD,
    PICTURES,
    RELEASE,
    REPORT,
    RUN,
    SAMPLE_GRIDS,
    SETS,
    SHARDS,
    Kind,
)
from galaxies.datasets.prepared import PreparedDataset
from galaxies.mock_survey import writing
from studies import ablation, arms, families, noise_schedules, realism, solvers, train_release, widths
from studies.runs import STUDY
from tests.conftest import TINY, tree_of, write_dataset
from tests.generation.painted import GRIZ, write_flux_checkpoint
from tests.validation.mock_fields import Source, light_of, write_field

THESIS = b"years of work"
# What tells a folder of each kind, and nothing more.
TELLS = {
    DATASET: {"manifest.json": '{"sha256": {"images.npy": "", "catalogue.csv": ""}}'},
    GALAXY_ZOO: {"truth.csv": "object_id,morphology\n"},
    RUN: {"metrics.jsonl": '{"kind": "train", "phase": "predictor", "epoch": 1, "step": 2}\n', "latest.pt": "PK"},
    SAMPLE_GRIDS: {"epoch_0001.png": "PNG"},
    RELEASE: {"generator.json": '{"config": {}, "attributes": [], "provenance": {}}'},
    REPORT: {"report.json": '{"format_version": 2, "checkpoint": {}, "data": {}}'},
    SETS: {"sets.json": '{"format_version": 1, "reference": {}, "sets": []}'},
    FIELD_EVALUATION: {"evaluation.json": '{"format_version": 1, "survey": "LSST", "of_folder": {}}'},
    PICTURES: {"catalogue.csv": "file,seed,morphology\n"},
    SHARDS: {"request.json": '{"count": 1, "shard_size": 1, "requests": ""}'},
    MOCK_FIELD: {"field.json": '{"survey": "", "reference_band": "r", "faintest_magnitude": 25}'},
}


class Writer(NamedTuple):
    """A script with an option that names an output, for which {out} stands; {d}, {c} and so on are inputs."""

    main: Callable
    words: str
    kind: Kind | None = None  # None: a file
    files: tuple[str, ...] = ()


SINGLE = ("grid.png", "catalogue.csv")
GENERATE = "--checkpoint {c} --device cpu --morphology spiral --count 2 --out {out}"
DATA_FILES = ("images.npy", "catalogue.csv", "manifest.json")
LABELLED = "labelled --images {p} --labels {p}/labels.csv --out {out}"
RELEASING = "--checkpoint {c} --report {r} --data {d} --credit x --out {out}"
FOLDERS = {
    "labelled": Writer(
        prepare_data.main, "labelled --images {p} --labels {p}/labels.csv --out {out}", DATASET, DATA_FILES
    ),
    "labelled over": Writer(prepare_data.main, LABELLED + " --overwrite", DATASET, DATA_FILES),
    "gz2": Writer(prepare_data.main, "gz2 --path {p} --out {out} --overwrite", DATASET, DATA_FILES),
    "gz2 download": Writer(prepare_data.main, "gz2 --download --only-catalogue --path {out}", GALAXY_ZOO),
    "simulated": Writer(prepare_data.main, "simulated --count 8 --out {out} --overwrite", DATASET, DATA_FILES),
    "as gz2": Writer(
        prepare_data.main, "simulated --count 8 --out {new} --as-gz2 {out} --overwrite", GALAXY_ZOO, GALAXY_ZOO.files
    ),
    "as gz2, out": Writer(
        prepare_data.main, "simulated --count 8 --as-gz2 {new} --out {out} --overwrite", DATASET, DATA_FILES
    ),
    "join": Writer(prepare_data.main, "join --inputs {d} {d} --out {out} --overwrite", DATASET, DATA_FILES),
    "png": Writer(generate_from_checkpoint.main, GENERATE, PICTURES, (*SINGLE, "images/galaxy_00001.png")),
    "fits": Writer(
        generate_from_checkpoint.main, GENERATE + " --format fits", PICTURES, (*SINGLE, "images/galaxy_00001.fits")
    ),
    "named": Writer(
        generate_from_checkpoint.main,
        GENERATE + " --names requests",
        PICTURES,
        (*SINGLE, "images/spiral_seed-1_gan.png"),
    ),
    "npz": Writer(generate_from_checkpoint.main, GENERATE + " --format npz", PICTURES, (*SINGLE, "images.npz")),
    "shards": Writer(
        generate_from_checkpoint.main,
        GENERATE + " --shard-size 1",
        SHARDS,
        ("request.json", "grid.png", "images_00001.npy", "catalogue_00000.csv"),
    ),
    "observed": Writer(
        observe.main,
        "galaxies --checkpoint {flux} --survey LSST --bands r --morphology disc --count 2 --out {out}",
        PICTURES,
        (*SINGLE, "observation.json", "images/galaxy_00001.png"),
    ),
    "mock field": Writer(
        observe.main,
        "field --survey LSST --bands r --area 0.02 --faintest 20 --out {out}",
        MOCK_FIELD,
        ("field.json", "r.fits", "truth.fits"),
    ),
    "report": Writer(evaluate.main, "report --checkpoint {c} --data {d} --out {out}", REPORT, REPORT.files),
    "sets": Writer(evaluate.main, "sets --reference {d} --compare {d} --out {out}", SETS, ("sets.json",)),
    "field": Writer(evaluate.main, "field {f} --most 2 --out {out}", FIELD_EVALUATION, ("evaluation.json",)),
    "release": Writer(
        release_checkpoint.main,
        "--checkpoint {c} --report {r} --data {d} --credit x --out {out}",
        RELEASE,
        RELEASE.files,
    ),
    "run": Writer(galaxy.main, "--data {d} --run {name}", RUN, ("metrics.jsonl", "latest.pt", "epoch_0002.pt")),
    "grids": Writer(galaxy.main, "--data {d} --run {name}", SAMPLE_GRIDS, ("epoch_0001.png", "curves.png")),
    "ablation": Writer(ablation.main, "--data {d} --out {out}", STUDY, ("table.md", "ablation.json", "ablation.png")),
    "families": Writer(
        families.main, "--gan {c} --diffusion {c} --data {d} --out {out}", STUDY, ("table.md", "table.json")
    ),
    "solvers": Writer(
        solvers.main, "--checkpoint {diffusion} --data {d} --out {out}", STUDY, ("table.md", "settings.json")
    ),
    "realism": Writer(
        realism.main, "--mock {d} --real {d} --out {out}", STUDY, ("realism.json", "mock_and_real.png", "merger.png")
    ),
    "arms": Writer(arms.main, "--real {d} --out {out}", STUDY, ("arms.json", "arms.png", "nuclei.png")),
    "train_release": Writer(train_release.main, "--data {d} --credit x --out {out}", STUDY, ("settings.json",)),
    "pack": Writer(train_release.main, "--pack --data {d} --out {out}", STUDY),
}
FILES = {
    "measure": Writer(evaluate.main, "measure {p}/0.png --out {out}"),
    "compare": Writer(evaluate.main, "compare {r} --out {out}"),
    "validate": Writer(evaluate.main, "validate --data {d} --device cpu --out {out}"),
    "augmentation": Writer(evaluate.main, "augmentation --checkpoint {c} --data {d} --device cpu --out {out}"),
    "average": Writer(evaluate.main, "average --checkpoint {c} --data {d} --device cpu --out {out}"),
    "widths": Writer(widths.main, "--data {d} --out {out}"),
    "noise_schedules": Writer(noise_schedules.main, "--document {c} --default {c} --out {out}"),
}


@pytest.fixture(scope="module")
def inputs(trained, untrained, dataset_path, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "pictures").mkdir()
    write_labelled(folder / "pictures")
    sources = [Source(40, 40, 1000.0, 0.5)]
    write_field(folder / "field", sources, light_of(sources, 80, 80), 1.0)
    return {
        "c": trained / "checkpoints/tiny/latest.pt",
        "diffusion": untrained["diffusion"],
        "flux": write_flux_checkpoint(folder / "flux.pt", **GRIZ),
        "d": dataset_path,
        "p": folder / "pictures",
        "f": folder / "field",
        "r": Path(__file__).parent / "validation/report_of_format_1.json",
    }


def write_labelled(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    rows = ["image,morphology"]
    for k, name in enumerate(MORPHOLOGY_NAMES):
        Image.fromarray(rng.integers(0, 255, (128, 128, 3), dtype=np.uint8)).save(folder / f"{k}.png")
        rows.append(f"{k}.png,{name}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def place(writer: Writer, work: Path) -> Path:
    """Return the folder that a writer is to be sent to; a run's is where its name says."""
    return work / {RUN: "checkpoints/r", SAMPLE_GRIDS: "samples/r"}.get(writer.kind, "out")


def call(writer: Writer, out: Path, inputs: dict[str, Path], work: Path) -> None:
    names = {name: str(path) for name, path in inputs.items()}
    filled = [word.format(out=out, name="r", new=work / "new", **names) for word in writer.words.split()]
    writer.main([*filled, *(TINY if writer.main is galaxy.main else ())])


def refused(writer: Writer, out: Path, inputs: dict[str, Path], work: Path) -> str:
    before = tree_of(work)
    with pytest.raises(UserError) as caught:
        call(writer, out, inputs, work)
    assert tree_of(work) == before
    assert [path.name for path in work.rglob(".*.partial-*")] == []
    return str(caught.value)


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_holds_something_else_of_this_program_is_refused(work, inputs, name):
    writer = FOLDERS[name]
    for kind in KINDS:
        if kind is writer.kind or (kind is RUN and writer.kind is SAMPLE_GRIDS):
            continue
        out = place(writer, work)
        out.mkdir(parents=True)
        for file, content in TELLS[kind].items():
            (out / file).write_text(content)
        text = refused(writer, out, inputs, work)
        # Of a run there is a sentence of its own, as it can be gone on with.
        assert (
            f"holds {kind.what}: name another folder" in text
            or "run r exists: go on" in text
            or "exists: choose" in text
        )
        shutil.rmtree(out)


@pytest.mark.parametrize("name", [name for name, writer in FOLDERS.items() if writer.files])
def test_a_file_of_the_users_in_a_folder_is_not_written_over(work, inputs, name):
    writer = FOLDERS[name]
    for file in writer.files:
        out = place(writer, work)
        (out / file).parent.mkdir(parents=True)
        (out / file).write_bytes(THESIS)
        (out / "keep.txt").write_bytes(THESIS)
        refused(writer, out, inputs, work)
        shutil.rmtree(out)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_users_is_not_written_over(work, inputs, name):
    for file in ("thesis.csv", "notes.md", "t.json"):
        (work / file).write_bytes(THESIS)
        assert "is not what this program writes here" in refused(FILES[name], work / file, inputs, work)
    (work / "measured").mkdir()
    assert "is a folder" in refused(FILES[name], work / "measured", inputs, work)


@pytest.mark.parametrize(
    ("main", "words", "over"),
    [
        (evaluate.main, "measure a.png --out a.png", "a.png"),
        (evaluate.main, "measure a.png d/../a.png --out ./d/../a.png", "a.png"),
        (evaluate.main, "measure a.png --out d/catalogue.csv", "d/catalogue.csv"),
        (evaluate.main, "validate --data d --device cpu --out d/manifest.json", "d/manifest.json"),
        (evaluate.main, "augmentation --checkpoint c.pt --data d --out c.pt", "c.pt"),
        (evaluate.main, "average --checkpoint c.pt --data d --out c.pt", "c.pt"),
        (prepare_data.main, "labelled --images a.png --labels d/catalogue.csv --out d --overwrite", "d/catalogue.csv"),
        (prepare_data.main, "labelled --images d --labels l.csv --out d --overwrite", "d/catalogue.csv"),
        (prepare_data.main, "join --inputs d d --out d --overwrite", "d/images.npy"),
        (prepare_data.main, "gz2 --path new --out new --overwrite", "d/images.npy"),
    ],
)
def test_an_input_is_not_written_over(work, inputs, main, words, over):
    write_dataset(work / "d", 16)
    shutil.copy(inputs["p"] / "0.png", work / "a.png")
    shutil.copy(inputs["c"], work / "c.pt")
    before = tree_of(work)
    with pytest.raises(UserError, match=r"is one of the inputs|is the name of a file of a prepared dataset"):
        main(words.split())
    assert tree_of(work) == before and over in before


def user_files(out: Path) -> dict[str, bytes]:
    """Put files of the user's into a folder."""
    files = {"keep.txt": THESIS, "mine/thesis.txt": THESIS, "images/galaxy_00001_annotated.png": THESIS}
    files |= {"images/notes.txt": THESIS, ".hidden": THESIS, "images/spiral_seed-7_gan.png": THESIS}
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    return files


@pytest.mark.parametrize("name", ["labelled over", "simulated"])
def test_a_dataset_that_is_replaced_leaves_what_else_is_there(work, inputs, name, monkeypatch):
    out = write_dataset(work / "out", 16)
    before, files = tree_of(out), user_files(out)
    call(FOLDERS[name], out, inputs, work)
    after = tree_of(out)
    assert {key: after[key] for key in files} == files
    assert after.keys() == files.keys() | before.keys() and after["images.npy"] != before["images.npy"]
    PreparedDataset.open(out)
    assert [p.name for p in work.iterdir()] == ["out"]


def test_a_mock_release_that_is_replaced_leaves_what_else_is_there(work, monkeypatch):
    def write_files(folder: Path, *_) -> None:
        for name in GALAXY_ZOO.files:
            (folder / name).write_text("new")

    monkeypatch.setattr(writing, "_write_files", write_files)
    out = work / "out"
    out.mkdir()
    (out / "truth.csv").write_text("object_id,morphology\n")
    files = user_files(out)
    writing.write_release(out, 4, 0, "cpu", overwrite=True)
    assert tree_of(out) == {**files, **dict.fromkeys(GALAXY_ZOO.files, b"new")}


def test_generated_galaxies_leave_what_else_is_there(work, inputs):
    out = work / "out"
    files = user_files(out)
    seen = []
    for name in ("png", "fits", "named", "npz", "png"):
        call(FOLDERS[name], out, inputs, work)
        after = tree_of(out)
        assert {key: after[key] for key in files} == files
        seen.append(sorted(after.keys() - files.keys()))
    single = ["catalogue.csv", "grid.png"]
    assert seen == [
        [*single, "images/galaxy_00000.png", "images/galaxy_00001.png"],
        [*single, "images/galaxy_00000.fits", "images/galaxy_00001.fits"],
        [*single, "images/spiral_seed-0_gan.png", "images/spiral_seed-1_gan.png"],
        [*single, "images.npz"],
        [*single, "images/galaxy_00000.png", "images/galaxy_00001.png"],
    ]
    # One galaxy less, and the user's own picture under the name of the one that is no longer there.
    (out / "images/galaxy_00007.png").write_bytes(THESIS)
    generate_from_checkpoint.main([w.format(out=out, **inputs) for w in GENERATE.replace("2", "1").split()])
    assert tree_of(out).keys() == {*files, *single, "images/galaxy_00000.png", "images/galaxy_00007.png"}


def test_an_observation_of_the_user_s_own_is_kept(work, inputs):
    out = work / "out"
    call(FOLDERS["png"], out, inputs, work)
    (out / "observation.json").write_bytes(THESIS)
    assert "is there and is no file of this program" in refused(FOLDERS["observed"], out, inputs, work)
    call(FOLDERS["png"], out, inputs, work)
    assert (out / "observation.json").read_bytes() == THESIS
    (out / "observation.json").unlink()
    call(FOLDERS["observed"], out, inputs, work)
    call(FOLDERS["png"], out, inputs, work)
    assert not (out / "observation.json").exists()  # which would be taken for that of the new pictures


def test_shards_leave_what_else_is_there(work, inputs):
    out = work / "out"
    files = user_files(out)
    call(FOLDERS["shards"], out, inputs, work)
    after = tree_of(out)
    assert {key: after[key] for key in files} == files and "catalogue_00001.csv" in after


def test_a_run_touches_nothing_but_its_own_files(work, inputs):
    folders = work / "checkpoints/r", work / "samples/r"
    files = {}
    for folder in folders:
        files |= {(folder / name): content for name, content in user_files(folder).items()}
        for name in (".notes.tmp", "epoch_0001_best.pt.txt", "my_epoch_0001.png"):
            (folder / name).write_bytes(THESIS)
            files[folder / name] = THESIS
    galaxy.main(["--data", str(inputs["d"]), "--run", "r", *TINY, "--pretrain-epochs", "1", "--epochs", "1"])
    assert {path: path.read_bytes() for path in files} == files
    assert (folders[0] / "latest.pt").is_file() and (folders[1] / "epoch_0001.png").is_file()
    assert "run r exists" in refused(FOLDERS["run"], folders[0], inputs, work)


@pytest.mark.parametrize("name", ["measure", "compare"])
def test_a_table_of_ones_own_is_replaced(work, inputs, name):
    out = work / "t.csv"
    for _ in range(2):
        call(FILES[name], out, inputs, work)
    assert [p.name for p in work.iterdir()] == ["t.csv"] and out.stat().st_size > 100


def test_the_results_of_a_benchmark_are_replaced_and_nothing_else(work):
    path = work / "x.json"
    for _ in range(2):
        suite._write(path, {"machine": {}, "quick": True, "parts": {}})
    path.write_bytes(THESIS)
    with pytest.raises(UserError, match="is not what this program writes here"):
        suite._write(path, {"machine": {}, "quick": True, "parts": {}})
