"""An interrupted field goes on with what is painted, several ranks share its cells, and the bytes are the same."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

import pytest

import observe
from galaxies.common.durable_files import only_process
from galaxies.common.errors import UserError
from galaxies.common.outputs import MOCK_FIELD, check_folder
from galaxies.compute.ranks import LostRankError, Ranks
from galaxies.mock_field import making, painting
from galaxies.mock_field.field_folder import MockField
from galaxies.mock_field.painted_cells import PaintedCells
from tests import kill_jobs
from tests.conftest import tree_of

WORDS = "field --survey LSST --bands i --area 0.3 --faintest 24.5 --stars 12 --seed 3 --out out"
CELLS = [(row, column) for row in range(2) for column in range(2)]


@pytest.fixture(autouse=True)
def small_cells(monkeypatch, tmp_path):
    monkeypatch.setattr(painting, "CELL_ARCSEC", 20.0)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A field that nothing interrupted: its files by their names."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(painting, "CELL_ARCSEC", 20.0)
        patches.chdir(place := tmp_path_factory.mktemp("whole"))
        observe.main(WORDS.split())
        assert [path.name for path in place.iterdir()] == ["out"]
        assert set(MockField(place / "out").truth()["kind"].tolist()) == {b"galaxy", b"star"}
        return tree_of(place / "out")


def interrupted(monkeypatch, after=2, error=KeyboardInterrupt, words=WORDS):
    """Paint some cells of a field, and stop."""
    painted, paint = [], making.paint

    def some(sky, cell):
        if len(painted) == after:
            raise error
        painted.append(cell)
        return paint(sky, cell)

    with monkeypatch.context() as patches:
        patches.setattr(making, "paint", some)
        with pytest.raises(error):
            observe.main(words.split())


def cells_painted(monkeypatch, words=WORDS):
    """Make a field, and return which of its cells were painted now."""
    painted, paint = [], making.paint
    with monkeypatch.context() as patches:
        patches.setattr(making, "paint", lambda sky, cell: (painted.append(cell), paint(sky, cell))[1])
        observe.main(words.split())
    return painted


def kept(tmp_path):
    return sorted(path.name for path in (tmp_path / ".out.unfinished").glob("*.npz"))


def test_an_interrupted_field_goes_on(tmp_path, monkeypatch, whole, capsys):
    interrupted(monkeypatch)
    assert [path.name for path in tmp_path.iterdir()] == [".out.unfinished"]
    assert kept(tmp_path) == ["cell_00000_00000.npz", "cell_00000_00001.npz"]
    assert "is kept in" in capsys.readouterr().err
    with pytest.raises(UserError, match="out holds no mock field"):
        MockField(tmp_path / "out")
    assert cells_painted(monkeypatch) == CELLS[2:]
    assert "2 of 4 cells were painted before" in capsys.readouterr().out
    assert tree_of(tmp_path / "out") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("step", ["_add", "_add_noise", "_save_preview"])
def test_a_field_that_is_interrupted_while_it_is_put_together_goes_on(tmp_path, monkeypatch, whole, step):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patches:
        patches.setattr(making, step, full)
        with pytest.raises(UserError, match="out could not be written: No space left"):
            observe.main(WORDS.split())
    assert [path.name for path in tmp_path.iterdir()] == [".out.unfinished"]
    assert cells_painted(monkeypatch) == []
    assert tree_of(tmp_path / "out") == whole


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--seed 4", "seed 3, now 4"),
        ("--area 0.4", "area 164 x 164 pixels, now 190 x 190 pixels"),
        ("--bands g", "bands i, now g, exposure i=5520, now g=2400, another telescope"),
        ("--exposure 60", "exposure i=5520, now i=60, another telescope"),
        ("--stars 1.5", r"stars 12.0, now 1.5"),
        ("--faintest 22", "faintest 24.5, now 22.0, another counts"),
        ("--counts own.csv --counts-area 1", "another counts"),
        ("--clustering simple", "another clustering"),
        ("--survey HSC", "survey LSST, now HSC, "),
    ],
)
def test_other_settings_are_refused_with_what_is_other(tmp_path, monkeypatch, words, said, whole):
    (tmp_path / "own.csv").write_text("magnitude\n21\n")
    interrupted(monkeypatch, after=1)
    with pytest.raises(UserError, match=rf"out was begun with other settings \({said}") as caught:
        observe.main([*WORDS.split(), *words.split()])
    assert "begin anew with --overwrite, or choose another --out" in str(caught.value)
    assert kept(tmp_path) == ["cell_00000_00000.npz"] and not (tmp_path / "out").exists()


def test_overwriting_begins_anew_with_other_settings_and_goes_on_with_the_same(tmp_path, monkeypatch, whole):
    interrupted(monkeypatch, words=f"{WORDS} --seed 4")
    assert cells_painted(monkeypatch, f"{WORDS} --overwrite") == CELLS
    assert [name for name, content in tree_of(tmp_path / "out").items() if content != whole[name]] == ["field.json"]
    with pytest.raises(UserError, match="out exists: choose another --out"):
        observe.main(WORDS.split())
    interrupted(monkeypatch, words=f"{WORDS} --overwrite")
    assert MockField(tmp_path / "out").facts.seed == 3  # the old one
    assert cells_painted(monkeypatch, f"{WORDS} --overwrite") == CELLS[2:]


def test_a_catalogue_that_changed_is_another(tmp_path, monkeypatch):
    own = tmp_path / "own.csv"
    own.write_text("magnitude\n21\n22\n")
    words = f"{WORDS} --counts own.csv --counts-area 1"
    interrupted(monkeypatch, words=words)
    own.write_text("magnitude\n21\n22.1\n")
    with pytest.raises(UserError, match=r"other settings \(another counts\)"):
        observe.main(words.split())
    own.write_text("magnitude\n21\n22\n\n")
    assert cells_painted(monkeypatch, words) == CELLS[2:]


@pytest.mark.parametrize("damage", ["cut", "changed", "emptied"])
def test_a_damaged_cell_is_painted_anew(tmp_path, monkeypatch, damage, whole):
    interrupted(monkeypatch)
    path = tmp_path / ".out.unfinished" / "cell_00000_00001.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"cut": content[: len(content) // 2], "changed": content, "emptied": b""}[damage])
    with pytest.raises(UserError, match=r"cell_00000_00001\.npz was damaged and is removed: the same command"):
        observe.main(WORDS.split())
    assert not (tmp_path / "out").exists()
    assert cells_painted(monkeypatch) == [(0, 1)]
    assert tree_of(tmp_path / "out") == whole


def test_what_killed_processes_left_does_no_harm(tmp_path, monkeypatch, whole):
    interrupted(monkeypatch)
    unfinished = tmp_path / ".out.unfinished"
    (unfinished / ".cell_00001_00000.npz.1.tmp").write_bytes(b"half a cell")
    assert cells_painted(monkeypatch) == CELLS[2:]
    assert tree_of(tmp_path / "out") == whole and not unfinished.exists()
    unfinished.mkdir()
    (unfinished / "cell_00000_00000.npz").write_bytes(b"of nobody knows what")  # its request is gone
    with pytest.raises(UserError, match="out exists"):
        observe.main(WORDS.split())
    assert cells_painted(monkeypatch, f"{WORDS} --overwrite") == CELLS


def test_settings_that_cannot_be_read_are_others(tmp_path, monkeypatch):
    interrupted(monkeypatch)
    (tmp_path / ".out.unfinished" / "request.json").write_text("{")
    with pytest.raises(UserError, match=r"other settings \(which cannot be read\)"):
        observe.main(WORDS.split())


def test_two_programs_do_not_make_one_field(tmp_path, monkeypatch):
    with (
        only_process(tmp_path / ".out.unfinished.lock"),
        pytest.raises(UserError, match="out is made by another process: wait, or choose another --out"),
    ):
        observe.main(WORDS.split())


def test_cells_that_are_to_be_painted_count_towards_the_disk(tmp_path, monkeypatch):
    with monkeypatch.context() as patches:
        patches.setattr(making, "bytes_of_cell", lambda facts: 2 << 50)
        with pytest.raises(UserError, match=r"needs 9\.01e\+06 GB and the disk has"):
            observe.main(WORDS.split())
        assert not list(tmp_path.iterdir())
        patches.undo()
        interrupted(monkeypatch, after=3)
        patches.setattr(making, "bytes_of_cell", lambda facts: 2 << 50)
        with pytest.raises(UserError, match=r"needs 2\.25e\+06 GB and the disk has"):
            observe.main(WORDS.split())
    assert len(kept(tmp_path)) == 3


class Together(Ranks):
    """A rank whose others do their part while it waits for them."""

    others = None

    def first_says(self, value):
        type(self).left = value if self.is_first else type(self).left
        return type(self).left

    def wait_for_all(self):
        if self.is_first:
            for other in self.others:
                other()


def test_ranks_share_the_cells(tmp_path, monkeypatch, whole):
    interrupted(monkeypatch, after=1)
    (tmp_path / ".out.unfinished" / "stopped").touch()  # by ranks that failed before
    monkeypatch.setattr(Ranks, "connect", lambda *_: None)
    painted, paint = {}, making.paint

    def make(rank, error=None):
        def noted(sky, cell):
            painted.setdefault(rank, []).append(cell)
            if error is not None:
                raise error
            return paint(sky, cell)

        with monkeypatch.context() as patches:
            patches.setattr(Ranks, "from_environment", lambda: Together(rank, 2, rank))
            patches.setattr(making, "paint", noted)
            observe.main(WORDS.split())

    Together.others = [lambda: make(1)]
    make(0)
    assert painted == {0: [CELLS[1], CELLS[3]], 1: [CELLS[2]]}
    assert tree_of(tmp_path / "out") == whole


def test_a_rank_refuses_another_field_and_ends_with_the_others(tmp_path, monkeypatch):
    interrupted(monkeypatch, after=1)
    monkeypatch.setattr(Ranks, "connect", lambda *_: None)
    monkeypatch.setattr(Ranks, "from_environment", lambda: Together(1, 2, 1))
    Together.left = CELLS[1:]
    with pytest.raises(UserError, match=r"rank 1 would paint another field \(seed 3, now 4\)"):
        observe.main([*WORDS.split(), "--seed", "4"])
    assert len(kept(tmp_path)) == 1
    with pytest.raises(LostRankError, match=r"^$"):  # for the one before has failed
        observe.main(WORDS.split())


def test_an_empty_folder_that_holds_its_own_cells_is_empty(tmp_path):
    out = tmp_path / "out"
    (out / ".out.unfinished").mkdir(parents=True)  # as where only the folder itself can be written
    check_folder(out, MOCK_FIELD, overwrite=False)
    (out / "other").touch()
    with pytest.raises(UserError, match="exists"):
        check_folder(out, MOCK_FIELD, overwrite=False)


def test_a_rank_that_fails_says_why_and_ends_the_others(tmp_path):
    cells, first, second = PaintedCells(tmp_path / "out"), Ranks(0, 2, 0), Ranks(1, 2, 1)
    cells.folder.mkdir()
    cells.check_on_others(first)
    with pytest.raises(LostRankError, match=r"^rank 0 has lost .*: what is painted is kept"), cells.together(first):
        raise LostRankError("rank 0 has lost another rank")
    with pytest.raises(LostRankError, match=r"^$"), cells.together(second):  # rank 0 of its machine speaks
        raise LostRankError("rank 1 has lost another rank")
    with pytest.raises(UserError, match="the file is gone"), cells.together(second):
        raise UserError("the file is gone")
    with pytest.raises(LostRankError, match=r"^$"), cells.together(first):
        cells.check_on_others(first)
    cells.check_on_others(Ranks())


def test_a_rank_paints_what_rank_0_has_begun_or_nothing(tmp_path, monkeypatch):
    cells = PaintedCells(tmp_path / "out")
    with pytest.raises(UserError, match=r"rank 3 does not see .*out\.unfinished: choose an --out on a disk that all"):
        cells.check({"seed": 3}, 3)
    with cells.claimed({"seed": 3}, False):
        cells.check({"seed": 3}, 3)
        with pytest.raises(UserError, match=r"rank 3 would paint another field \(seed 3, now 4\)"):
            cells.check({"seed": 4}, 3)


def test_what_all_ranks_find_wrong_is_said_once(monkeypatch):
    with pytest.raises(UserError, match="nothing is not"):
        observe.main([*WORDS.split(), "--area", "nothing"])
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UserError, match=r"^$"):
        observe.main([*WORDS.split(), "--area", "nothing"])


needs_gloo = pytest.mark.skipif(sys.platform == "win32", reason="gloo needs a resolvable host name there")
LARGE = [*WORDS.replace("0.3", "1.4").replace("24.5", "20.5").replace("12", "3").split()]


def start_ranks(*folders, words=LARGE):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    logs = [folder / "log" for folder in folders]
    return [
        kill_jobs.start(kill_jobs.rank, number, len(folders), port, "observe.py", words, folder, log)
        for number, (folder, log) in enumerate(zip(folders, logs, strict=True))
    ], logs


def finish(processes, logs):
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes], [log.read_text(encoding="utf-8") for log in logs]


@needs_gloo
def test_two_ranks_make_the_same_bytes_and_one_speaks(tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ("one", "a", "b")]
    for folder in folders:
        folder.mkdir()
    (tmp_path / "b" / "out").symlink_to(tmp_path / "a" / "out")  # two working folders, and a disk that both share
    processes = start_ranks(*folders[1:])
    monkeypatch.setattr(painting, "CELL_ARCSEC", 64.0)
    monkeypatch.chdir(folders[0])
    observe.main(LARGE)
    statuses, said = finish(*processes)
    assert statuses == [0, 0], said
    assert "sources in" in said[0] and said[1] == ""
    assert tree_of(tmp_path / "one" / "out") == tree_of(tmp_path / "a" / "out")


@needs_gloo
@pytest.mark.slow
def test_a_fault_of_one_rank_is_one_sentence(tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder, magnitude in zip(folders, (20, 20.1), strict=True):
        folder.mkdir()
        (folder / "own.csv").write_text(f"magnitude\n{magnitude}\n")
    (tmp_path / "b" / "out").symlink_to(tmp_path / "a" / "out")
    words = [*LARGE, "--counts", "own.csv", "--counts-area", "1"]
    statuses, said = finish(*start_ranks(*folders, words=words))
    assert statuses == [2, 2]
    assert "error: rank 1 would paint another field (another counts)" in said[1] and said[1].count("\n") == 1
    assert "error" not in said[0] and "Traceback" not in said[0]
    statuses, said = finish(*start_ranks(*folders, words=[*words, "--exposure", "0"]))
    assert statuses == [2, 2] and "an exposure of 0 seconds" in said[0] and said[1] == ""


@needs_gloo
@pytest.mark.slow
def test_a_killed_rank_ends_the_others_and_the_next_go_on(tmp_path):
    folders = [tmp_path / "a", tmp_path / "a"]
    folders[0].mkdir()
    words = [*LARGE, "--area", "9", "--faintest", "24"]
    processes, logs = start_ranks(*folders, words=words)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "a").glob(".out.unfinished/*.npz"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(processes[1].pid, signal.SIGKILL)
    (first, _), _ = finish(processes, logs)
    assert first == 2 and not (tmp_path / "a" / "out").exists()
    statuses, _ = finish(*start_ranks(*folders, words=words))
    assert statuses == [0, 0]
    (tmp_path / "one").mkdir()
    kill_jobs.run_to_end(kill_jobs.script, "observe.py", words, tmp_path / "one", tmp_path / "one" / "log")
    assert tree_of(tmp_path / "one" / "out") == tree_of(tmp_path / "a" / "out")
