"""Files in parts: the same bytes again, no part above the limit, and the old ones stay until the new are whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import numpy as np
import pytest

from galaxies.common.errors import UserError
from galaxies.storage import parts
from galaxies.storage.parts import has_parts, read_parts, write_parts
from tests import kill_jobs

LIMIT = 1000


@pytest.fixture
def files(tmp_path):
    """Files that end within a part, at its end and before its beginning, one of them empty."""
    rng = np.random.default_rng(0)
    made = {}
    for name, size in {"a/b/one.bin": 2500, "two": 500, "none": 0, "three": 1000, "four.json": 1}.items():
        made[name] = tmp_path / "from" / name
        made[name].parent.mkdir(parents=True, exist_ok=True)
        made[name].write_bytes(rng.bytes(size))
    return made


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("limit", [1, 499, 500, 1000, 4001, 10_000])
def test_files_come_back_to_the_byte_and_no_part_is_too_large(files, tmp_path, limit):
    out = tmp_path / "out"
    written = write_parts(out, "state", files, limit)
    assert sorted(path.name for path in written) == names(out)
    sizes = [path.stat().st_size for path in written[1:]]
    assert max(sizes) <= limit and sum(sizes) == 4001 and len(sizes) == -(-4001 // limit)
    assert read_parts(out, "state", tmp_path / "back") == list(files)
    for name, path in files.items():
        assert (tmp_path / "back" / name).read_bytes() == path.read_bytes()


def test_names_are_letters_digits_and_a_few_signs(files, tmp_path):
    for path in write_parts(tmp_path / "out", "state", files, LIMIT):
        assert set(path.name) <= {*"abcdefghijklmnopqrstuvwxyz0123456789._-"}


def test_the_list_says_what_hashlib_says(files, tmp_path):
    write_parts(tmp_path, "state", files, LIMIT)
    listed = json.loads((tmp_path / "state.json").read_text())
    for part in listed["parts"]:
        assert hashlib.sha256((tmp_path / part["name"]).read_bytes()).hexdigest() == part["sha256"]


def test_what_was_there_goes_and_others_stay(files, tmp_path):
    out = tmp_path / "out"
    write_parts(out, "data", {"two": files["two"]}, LIMIT)
    write_parts(out, "state-2", {"two": files["two"]}, LIMIT)
    (out / "state_note.txt").write_text("mine")
    write_parts(out, "state", files, LIMIT)
    (out / ".state_7_1.part.tmp").write_bytes(b"left by a kill")
    write_parts(out, "state", {"three": files["three"]}, LIMIT)
    there = names(out)
    assert [n for n in there if n.startswith(("state_", ".")) and n != "state_note.txt"] == ["state_8_1.part"]
    assert {"data.json", "data_1_1.part", "state-2_1_1.part", "state_note.txt"} <= set(there)
    read_parts(out, "state", tmp_path / "back")
    assert names(tmp_path / "back") == ["three"]


def test_a_note_goes_with_them(files, tmp_path):
    write_parts(tmp_path, "state", files, note={"galaxies": 3})
    assert parts.read_note(tmp_path, "state") == {"galaxies": 3}
    edit(tmp_path / "state.json", '"galaxies": 3', '"galaxies": 4')
    with pytest.raises(UserError, match="is damaged"):
        parts.read_note(tmp_path, "state")


def test_parts_are_looked_for_by_their_list(files, tmp_path):
    assert not has_parts(tmp_path / "nowhere", "state")
    write_parts(tmp_path, "state", files)
    assert has_parts(tmp_path, "state") and not has_parts(tmp_path, "data")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: (out / "state_1_2.part").unlink(), r"state_1_2\.part is missing: copy all files that the last"),
        (lambda out: flip(out / "state_1_2.part"), r"state_1_2\.part is damaged \(its checksum is wrong\): copy it"),
        (lambda out: cut(out / "state_1_5.part"), r"state_1_5\.part is damaged \(its checksum is wrong\): copy it"),
        (lambda out: (out / "state.json").unlink(), r"state\.json is missing: copy all files"),
        (lambda out: cut(out / "state.json"), r"state\.json is damaged or of a newer program: copy it again"),
        (lambda out: edit(out / "state.json", '"bytes": 500', '"bytes": 501'), r"state\.json is damaged"),
        (lambda out: edit(out / "state.json", '"two"', '"too"'), r"state\.json is damaged"),
        (lambda out: (out / "state.json").write_text("[]"), r"state\.json is damaged"),
        (lambda out: (out / "state.json").write_text("{}"), r"state\.json is damaged"),
    ],
)
def test_a_missing_or_damaged_part_is_one_sentence(files, tmp_path, damage, message):
    out = tmp_path / "out"
    write_parts(out, "state", files, LIMIT)
    damage(out)
    with pytest.raises(UserError, match=message) as raised:
        read_parts(out, "state", tmp_path / "back")
    assert "\n" not in str(raised.value)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1] if path.suffix == ".part" else path.read_bytes()[:-9])


def edit(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt", "c:out.txt", "..\\out.txt"])
def test_no_file_leads_out_of_the_folder(files, tmp_path, name):
    write_parts(tmp_path / "parts", "state", {name: files["two"]})
    with pytest.raises(UserError, match="is damaged"):
        read_parts(tmp_path / "parts", "state", tmp_path / "back" / "deep")
    assert not (tmp_path / "back").exists() and not (tmp_path / "out.txt").exists()


def test_a_list_of_a_newer_program_is_refused(files, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_FORMAT_VERSION", 2)
    write_parts(tmp_path, "state", files)
    monkeypatch.undo()
    with pytest.raises(UserError, match="of a newer program"):
        read_parts(tmp_path, "state", tmp_path / "back")


def test_files_that_cannot_be_read_or_written_are_one_sentence(files, tmp_path):
    with pytest.raises(UserError, match="could not be written"):
        write_parts(files["two"], "state", files)
    write_parts(tmp_path / "out", "state", {"two": files["two"]})
    with pytest.raises(UserError, match="could not be written"):
        write_parts(tmp_path / "out", "state", {"gone": tmp_path / "gone"})
    read_parts(tmp_path / "out", "state", tmp_path / "back")  # the old ones are untouched


def write_second(out, folder):
    write_parts(out, "state", {"a": folder / "second"}, LIMIT)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path):
    rng = np.random.default_rng(1)
    for name, size in (("first", 3400), ("second", 2300)):
        (tmp_path / name).write_bytes(rng.bytes(size))
    seen = set()
    for operation in range(100):
        out, back = tmp_path / "out", tmp_path / "back"
        shutil.rmtree(out, ignore_errors=True)
        write_parts(out, "state", {"a": tmp_path / "first"}, LIMIT)
        status = kill_jobs.run_to_end(kill_jobs.die_at, operation, write_second, out, tmp_path)
        read_parts(out, "state", back)
        content = (back / "a").read_bytes()
        found = next(name for name in ("first", "second") if content == (tmp_path / name).read_bytes())
        seen.add(found)
        write_second(out, tmp_path)  # and what the kill left is gone with the next writing
        assert len(names(out)) == 4
        if status == 0:
            break
    assert status == 0 and seen == {"first", "second"} and operation > 10
