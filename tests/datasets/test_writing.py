"""The prepared dataset on disk: contents, splits, and what faults leave behind."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from config_physics import MORPHOLOGY_NAMES
from galaxies.common.errors import UserError
from galaxies.datasets.writing import DatasetWriter, split_of
from tests.conftest import ROOT

IDS = [f"58{i:016d}" for i in range(40)]
CLASSES = [MORPHOLOGY_NAMES[i % 4] for i in range(40)]
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 3, 64, 64), dtype=np.uint8)


def write(out, images=IMAGES, ids=IDS, classes=CLASSES, values=None, **options):
    with DatasetWriter(out, 64, 0.5, {"source": "test", "rule": "labels"}, **options) as writer:
        for start in range(0, len(ids), 16):
            part = slice(start, start + 16)
            chunk = {} if values is None else {name: column[part] for name, column in values.items()}
            writer.append(images[part], ids[part], classes[part], chunk)
    return writer


def left_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "catalogue.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_contents(tmp_path):
    redshift = np.full(40, np.nan)
    redshift[3] = 0.0476488992571831
    values = {"redshift": redshift, "size": np.linspace(0.1, 0.2, 40), "stellar_mass": np.full(40, np.nan)}
    values["pixel_scale"] = np.full(40, 0.66)
    writer = write(tmp_path / "a", values=values)
    assert left_in(tmp_path) == ["a"]
    assert left_in(tmp_path / "a") == ["catalogue.csv", "images.npy", "manifest.json"]
    stored = np.load(tmp_path / "a" / "images.npy", mmap_mode="r", allow_pickle=False)
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, IMAGES)
    rows = rows_of(tmp_path / "a")
    assert list(rows[0]) == ["object_id", "morphology", "split", "size", "redshift", "pixel_scale"]
    assert [row["object_id"] for row in rows] == IDS
    assert [row["morphology"] for row in rows] == CLASSES
    assert [row["split"] for row in rows] == [split_of(i) for i in IDS]
    assert [row["redshift"] for row in rows] == [""] * 3 + ["0.0476489"] + [""] * 36
    assert [float(row["size"]) for row in rows] == pytest.approx(values["size"].tolist(), abs=1e-7)
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest == writer.manifest
    assert manifest["format_version"] == 1
    assert manifest["count"] == 40
    assert manifest["image_size"] == 64
    assert manifest["crop"] == 0.5
    assert manifest["source"] == "test"
    assert manifest["attributes"] == {"size": 40, "redshift": 1}
    assert {name: manifest["counts"][name] for name in MORPHOLOGY_NAMES} == dict.fromkeys(MORPHOLOGY_NAMES, 10)
    for split in ("train", "judge", "test"):
        expected = [row["morphology"] for row in rows if row["split"] == split]
        assert manifest["counts"][split] == {name: expected.count(name) for name in MORPHOLOGY_NAMES}
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((tmp_path / "a" / name).read_bytes()).hexdigest() == digest
    assert set(manifest["sha256"]) == {"images.npy", "catalogue.csv"}
    assert manifest["software"]["version"] == "galaxy-physics 1"


def test_chunks_with_and_without_values(tmp_path):
    with DatasetWriter(tmp_path / "a", 64, 0.5, {}) as writer:
        writer.append(IMAGES[:4], IDS[:4], CLASSES[:4], {})
        writer.append(IMAGES[4:8], IDS[4:8], CLASSES[4:8], {"redshift": np.array([1.0, np.nan, 3.0, 4.0])})
    assert [row["redshift"] for row in rows_of(tmp_path / "a")] == ["", "", "", "", "1", "", "3", "4"]


def test_splits():
    digest = hashlib.sha256(b"587732578312454276").digest()
    place = int.from_bytes(digest[:8], "big") % 100
    assert split_of("587732578312454276") == ("train" if place < 80 else "judge" if place < 90 else "test")
    assert [split_of(str(i)) for i in range(8)] == [split_of(str(i)) for i in range(8)]
    splits = [split_of(str(i)) for i in range(20_000)]
    assert splits.count("train") == pytest.approx(16_000, abs=250)
    assert splits.count("judge") == pytest.approx(2_000, abs=200)
    assert splits.count("test") == pytest.approx(2_000, abs=200)


def test_rejections_are_counted_and_listed(tmp_path):
    with DatasetWriter(tmp_path / "a", 64, 0.5, {}) as writer:
        writer.append(IMAGES, IDS, CLASSES, {})
        writer.unused = 7
        for name, reason in (("1.jpg", "missing"), ("2.jpg", "blank"), ("3.jpg", "missing")):
            writer.reject(name, reason)
    assert writer.manifest["unused"] == 7
    assert writer.manifest["rejected"] == {"missing": 2, "blank": 1}
    assert writer.manifest["rejected_files"][1] == {"name": "2.jpg", "reason": "blank"}


def test_nothing_to_write(tmp_path):
    with (
        pytest.raises(UserError, match=r"no image is left to write \(1 missing\)"),
        DatasetWriter(tmp_path / "a", 64, 0.5, {}) as writer,
    ):
        writer.reject("1.jpg", "missing")
    assert left_in(tmp_path) == []


def test_empty_class(tmp_path):
    classes = ["spiral" if name == "merger" else name for name in CLASSES]
    with pytest.raises(UserError, match="class merger has no image"):
        write(tmp_path / "a", classes=classes)
    assert left_in(tmp_path) == []
    write(tmp_path / "a", classes=classes, allow_empty_class=True)
    assert left_in(tmp_path) == ["a"]


def test_repeated_id(tmp_path):
    with pytest.raises(UserError, match=f"object id {IDS[0]} occurs twice"):
        write(tmp_path / "a", ids=[*IDS[:39], IDS[0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": IMAGES.astype(np.float32)}, "float32"),
        ({"images": IMAGES[:, :, :32, :32]}, r"\(16, 3, 32, 32\)"),
        ({"classes": ["edge_on"] * 40}, "edge_on"),
        ({"values": {"radius": np.zeros(40)}}, "radius"),
        ({"values": {"size": np.zeros(3)}}, "differ in length"),
    ],
)
def test_wrong_arrays(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a", **change)
    assert left_in(tmp_path) == []


def test_existing_dataset(tmp_path):
    write(tmp_path / "a")
    before = (tmp_path / "a" / "manifest.json").read_bytes()
    with pytest.raises(UserError, match=r"a exists: .*--overwrite"):
        write(tmp_path / "a")
    with pytest.raises(RuntimeError), DatasetWriter(tmp_path / "a", 64, 0.5, {}, overwrite=True) as writer:
        writer.append(IMAGES, IDS, CLASSES, {})
        assert (tmp_path / "a" / "manifest.json").read_bytes() == before
        raise RuntimeError
    assert (tmp_path / "a" / "manifest.json").read_bytes() == before
    write(tmp_path / "a", images=255 - IMAGES, overwrite=True)
    np.testing.assert_array_equal(np.load(tmp_path / "a" / "images.npy"), 255 - IMAGES)
    assert left_in(tmp_path) == ["a"]


def test_only_datasets_are_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not a prepared dataset"):
        write(tmp_path / "thesis", overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        write(tmp_path / "file", overwrite=True)
    assert left_in(tmp_path / "thesis") == ["chapter1.tex"]
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    assert left_in(tmp_path / "empty") == ["catalogue.csv", "images.npy", "manifest.json"]


def test_a_failed_last_step_keeps_the_old_dataset(tmp_path, monkeypatch):
    write(tmp_path / "a")
    rename = Path.rename

    def fail_on_new(self, target):
        if ".partial-" in self.name:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_new)
    with pytest.raises(UserError, match=r"a could not be written: Input/output error"):
        write(tmp_path / "a", images=255 - IMAGES, overwrite=True)
    np.testing.assert_array_equal(np.load(tmp_path / "a" / "images.npy"), IMAGES)
    assert left_in(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_leaves_nothing(tmp_path, error):
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(error), DatasetWriter(tmp_path / "a", 64, 0.5, {}) as writer:
        writer.append(IMAGES, IDS, CLASSES, {})
        assert left_in(tmp_path) == [f".a.partial-{os.getpid()}"]
        raise error
    assert left_in(tmp_path) == []
    assert signal.getsignal(signal.SIGTERM) is handler


def test_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"a could not be written: "):
        write(tmp_path / "file" / "a")


SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background would ignore it
sys.path.insert(0, {root!r})
import numpy as np
from galaxies.command_line import run_script
from galaxies.datasets.writing import DatasetWriter
def main(argv):
    {limit}
    with DatasetWriter({out!r}, 64, 0.5, {{}}) as writer:
        for i in range(400):
            writer.append(np.full((16, 3, 64, 64), i % 250, np.uint8), [f"{{i}}_{{j}}" for j in range(16)],
                          ["spiral"] * 16, {{}})
            if i == 3:
                print("writing", flush=True)
                time.sleep({sleep})
run_script(main)
"""


def start(out: Path, sleep: float = 60, limit: str = "pass") -> subprocess.Popen:
    code = SCRIPT.format(root=str(ROOT), out=str(out), sleep=sleep, limit=limit)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


posix = pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")


@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_signals_leave_nothing(tmp_path, number, status):
    process = start(tmp_path / "a")
    assert process.stdout.readline() == "writing\n"
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == status
    assert left_in(tmp_path) == []


@posix
def test_after_a_kill_the_next_run_cleans_up(tmp_path):
    process = start(tmp_path / "a")
    assert process.stdout.readline() == "writing\n"
    process.kill()
    process.communicate(timeout=20)
    assert left_in(tmp_path) == [f".a.partial-{process.pid}"]
    write(tmp_path / "b")  # another name leaves it alone
    assert left_in(tmp_path) == [f".a.partial-{process.pid}", "b"]
    write(tmp_path / "a")
    assert left_in(tmp_path) == ["a", "b"]


@posix
def test_a_running_process_keeps_its_folder(tmp_path):
    process = start(tmp_path / "a")
    assert process.stdout.readline() == "writing\n"
    write(tmp_path / "a")
    assert left_in(tmp_path) == [f".a.partial-{process.pid}", "a"]
    process.kill()
    process.communicate(timeout=20)


def test_a_kill_between_the_two_renames_is_mended(tmp_path):
    write(tmp_path / "a")
    finished = subprocess.Popen([sys.executable, "-c", "pass"])
    finished.wait(timeout=20)
    (tmp_path / "a").rename(tmp_path / f".a.replaced-{finished.pid}")
    with pytest.raises(UserError, match="a exists"):
        write(tmp_path / "a")
    assert left_in(tmp_path) == ["a"]
    np.testing.assert_array_equal(np.load(tmp_path / "a" / "images.npy"), IMAGES)


@posix
@pytest.mark.parametrize("space", [0, 300_000])
def test_no_space(tmp_path, space):
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({space}, {space}))"
    process = start(tmp_path / "a", sleep=0, limit=limit)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert len(errors.splitlines()) == 1
    assert f"{tmp_path / 'a'} could not be written: File too large" in errors
    assert left_in(tmp_path) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_flat(tmp_path):
    code = SCRIPT.format(root=str(ROOT), out=str(tmp_path / "a"), sleep=0, limit="pass")
    code = code.replace('["spiral"]', '[("spiral", "elliptical", "merger", "edge-on")[i % 4]]')
    code = code.replace(
        "run_script(main)",
        "from pathlib import Path\n"
        "peak = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "before = peak()\nmain([])\nprint(peak() - before)",
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert (tmp_path / "a" / "images.npy").stat().st_size > 78_000_000
    assert int(result.stdout.split()[-1]) < 20_000  # kB
