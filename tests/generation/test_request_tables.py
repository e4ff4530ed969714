"""Tables of requests of any length: blocks of them, other kinds of files, faults at any place, and memory."""

from __future__ import annotations

import gzip
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from astropy.table import Table

import generate_from_checkpoint
from galaxies.common.errors import UserError
from galaxies.generation import request_tables
from galaxies.generation.request_tables import read_requests, stored_requests
from galaxies.tables import reading
from galaxies.tables.reading import read_blocks, read_table
from tests.conftest import tree_of

NAMES = ("size", "ellipticity")
CLASSES = ("spiral", "elliptical", "merger", "edge-on")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Read ten rows at a time, and have more than fifty rows lie on the disk."""
    monkeypatch.setattr(request_tables, "_ROWS", 10)
    monkeypatch.setattr(request_tables, "_IN_MEMORY", 50 * 28)


def frame(count: int = 95) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    size = rng.uniform(0.05, 0.3, count).astype(np.float32)
    size[rng.random(count) < 0.3] = np.nan
    return pd.DataFrame(
        {
            "morphology": [CLASSES[k % 4] for k in range(count)],
            "size": size,
            "ellipticity": rng.uniform(0, 0.9, count).astype(np.float32),
            "seed": np.arange(1000, 1000 + count),
        }
    )


def write(table: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".fits":
        Table.from_pandas(table).write(path)
    elif path.suffix == ".vot":
        Table.from_pandas(table).write(path, format="votable")
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(table.to_csv(index=False).encode()))
    else:
        table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet", "fits", "vot"])
def test_every_kind_of_table_asks_for_the_same(tmp_path, ending):
    table = frame()
    stored = stored_requests(write(table, tmp_path / f"wanted.{ending}"), NAMES, 0)
    assert len(stored) == 95 and not stored.turned
    for start, stop in ((0, 95), (7, 33), (90, 95), (95, 95)):
        part, rows = stored.part(start, stop), table[start:stop]
        assert part.classes.tolist() == [CLASSES.index(name) for name in rows["morphology"]]
        assert part.seeds.tolist() == rows["seed"].tolist()
        assert np.array_equal(part.values.numpy(), rows[list(NAMES)].to_numpy(np.float32), equal_nan=True)


def test_one_block_or_many_are_the_same_request(tmp_path, monkeypatch):
    file = write(frame().drop(columns="seed"), tmp_path / "wanted.csv")
    stored, prints = stored_requests(file, NAMES, 7), set()
    for rows in (1, 10, 10_000):
        monkeypatch.setattr(request_tables, "_ROWS", rows)
        prints.add(stored_requests(file, NAMES, 7).fingerprint())
    whole = read_requests(file, NAMES, 7)
    assert prints == {whole.fingerprint()} and whole.seeds == list(range(7, 102))
    assert torch.equal(torch.cat([b.classes for b in stored.blocks(9)]), whole.classes)
    assert stored_requests(file, NAMES, 8).fingerprint() != whole.fingerprint()


def test_angles_are_unknown_where_a_table_has_none(tmp_path):
    (tmp_path / "a.csv").write_text("morphology,position_angle\nspiral,-45\nmerger,\n")
    stored = stored_requests(tmp_path / "a.csv", NAMES, 0)
    assert stored.turned and stored.part(0, 2).position_angles.nan_to_num(nan=9).tolist() == [-45, 9]


@pytest.mark.parametrize("row", [0, 9, 10, 94])
@pytest.mark.parametrize(
    ("column", "text", "sentence"),
    [
        ("size", "big", "size is 'big': it takes a number from 0.001 to 0.5 frame widths"),
        ("ellipticity", "1.5", "ellipticity is '1.5': it takes a number from 0 to 0.99"),
        ("morphology", "ring", "unknown morphology 'ring'"),
        ("morphology", " ", "morphology has no value"),
        ("seed", "x", "seed is 'x': it takes a whole number"),
    ],
)
def test_a_cell_that_cannot_be_asked_for_is_named_wherever_it_stands(tmp_path, row, column, text, sentence):
    table = frame().astype(object).where(frame().notna(), "")
    table.loc[row, column] = text
    table.loc[row + 1 :, "ellipticity"] = "what follows is not looked at"
    with pytest.raises(UserError) as caught:
        stored_requests(write(table, tmp_path / "wanted.csv"), NAMES, 0)
    assert str(caught.value).startswith(f"{tmp_path / 'wanted.csv'}, row {row + 2}: {sentence}")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("morphology,size\n", "has a header and no row"),
        ("size\n0.1\n", "has no column morphology: it has size"),
        ("morphology,colour\nspiral,1\n", "row 1: 'colour' is unknown to this checkpoint: it knows size, ellipticity"),
        ("morphology,size,size\nspiral,1,1\n", "has two columns size"),
        ("morphology,size\n" + "spiral,0.1\n" * 30 + "spiral,0,1\n", "row 32 of .* has 3 cells and its header 2"),
        ("morphology,size\n" + "spiral,0.1,\n" * 30 + "spiral,0.1\n", "row 2 of .* has 3 cells and its header 2"),
        ("morphology,size\n" + "spiral,0.1\n" * 30 + 'spiral,"0.1\n', "row 32 is no row of a table"),
        ("morphology;size\n" + "spiral;0,1\n" * 30 + "spiral;0.1\n", "column size of .*, row 32 has decimal points"),
        ("morphology;size\n" + "spiral;0.1\n" * 30 + "spiral;0,1\n", "column size of .*, row 32 has decimal commas"),
    ],
)
def test_what_is_no_table_of_requests(tmp_path, text, sentence):
    (tmp_path / "wanted.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        stored_requests(tmp_path / "wanted.csv", NAMES, 0)
    with pytest.raises(UserError, match="does not exist"):
        stored_requests(tmp_path / "other.csv", NAMES, 0)


def test_blocks_are_what_a_table_has_as_a_whole(tmp_path, capsys):
    texts = (
        "# remark\nA;b;c\n1;2;3\n\n4;5\n#6;7\n;;\n8;9;\n" * 1,
        "A,b,c,\n" + "1,2,3,\n" * 7,
        "A\tb\n" + "é\t2\n" * 5,
    )
    for number, text in enumerate(texts):
        for encoding in ("utf-8", "latin-1", "utf-16"):
            file = tmp_path / f"{number}-{encoding}.csv"
            file.write_bytes(text.encode(encoding))
            whole = read_table(file, ("a", "c"))
            said = capsys.readouterr().out
            for size in (1, 2, 100):
                blocks = list(read_blocks(file, ("a", "c"), size=size))
                assert capsys.readouterr().out == said
                assert pd.concat([b.cells for b in blocks], ignore_index=True).equals(whole.cells)
                assert [row for b in blocks for row in b.rows] == list(whole.rows)
                assert {b.others for b in blocks} == {whole.others} and max(map(len, blocks)) <= size


def test_a_table_is_not_refused_for_its_length_and_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(request_tables, "_ROWS", 1000)
    peaks = []
    for count in (5_000, 50_000):
        file = write(frame(count), tmp_path / f"{count}.csv")
        tracemalloc.start()
        stored = stored_requests(file, NAMES, 0)
        for block in stored.blocks(1000):
            assert len(block) == 1000
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 10e6
    monkeypatch.setattr(reading, "_MOST_STREAMED_ROWS", 4_000)
    with pytest.raises(UserError, match="it goes on after 0 MB and 4"):
        stored_requests(tmp_path / "5000.csv", NAMES, 0)


def test_shards_of_a_table_by_any_number_of_processes(trained, tmp_path, monkeypatch):
    file = write(frame(40)[["morphology", "size"]], tmp_path / "wanted.parquet")
    common = ["--checkpoint", trained / "checkpoints/tiny/latest.pt", "--device", "cpu", "--requests", file]
    for size in (1, 2, 3):
        monkeypatch.setenv("WORLD_SIZE", str(size))
        for rank in range(size):
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("LOCAL_RANK", str(rank))
            words = [*common, "--shard-size", 12, "--out", tmp_path / str(size)]
            generate_from_checkpoint.main([str(word) for word in words])
    assert tree_of(tmp_path / "1") == tree_of(tmp_path / "2") == tree_of(tmp_path / "3")
    table = pd.concat([pd.read_csv(path) for path in sorted((tmp_path / "1").glob("*.csv"))], ignore_index=True)
    asked = frame(40)
    known = asked["size"].notna()
    assert table["requested_size"][known].to_numpy() == pytest.approx(asked["size"][known].to_numpy(), rel=1e-6)
    assert table["set_by_user"].fillna("").tolist() == ["size" if there else "" for there in known]
    assert math.isfinite(table["requested_size"].sum()) and table["seed"].tolist() == list(range(40))
