"""Tables that are packed, coded, damaged or made to do harm, as far as their bytes go."""

import gzip
import io
import tracemalloc
from pathlib import Path

import pytest

from galaxies.common.untrusted_files import UntrustedFileError
from galaxies.tables import opening
from galaxies.tables.opening import TableStream, survey_table


def read_all(file: Path) -> bytes:
    with io.BufferedReader(TableStream(file)) as stream:
        return stream.read()


@pytest.mark.parametrize("packed", [False, True])
def test_a_table_is_read_as_it_is(tmp_path, packed):
    text = b'\xef\xbb\xbf Objid,"ASSET_ID"\r\n' + b"1,2\r\n" * 50_000 + b"3,4"
    (tmp_path / "a.csv").write_bytes(gzip.compress(text) if packed else text)
    assert read_all(tmp_path / "a.csv") == text
    survey = survey_table(tmp_path / "a.csv")
    assert survey.columns == ("objid", "asset_id")
    assert survey.rows == 50_001
    (tmp_path / "a.csv").write_bytes(text + b"\n")
    assert survey_table(tmp_path / "a.csv").rows == 50_001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a,b\n" + b"1,2\n" * 300_000, "it goes on after .* MB"),
        (b"a,b\n" + b"1\n" * 3000, "it goes on after 0 MB and 3001 lines"),
        (b"a," + b"x" * 400_000, "line 1 has more than 262144 bytes"),
        (b"a,b\n1," + b"x" * 400_000 + b"\n2,3\n", "line 2 has more than"),
        (b"a,b\n1,2\0\n", "it holds NUL bytes"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_tables_of_absurd_size(tmp_path, monkeypatch, text, message, packed):
    monkeypatch.setattr(opening, "MAX_TABLE_BYTES", 1_000_000)
    monkeypatch.setattr(opening, "MAX_ROWS", 2000)
    (tmp_path / "a.csv").write_bytes(gzip.compress(text) if packed else text)
    with pytest.raises(UntrustedFileError, match=message):
        survey_table(tmp_path / "a.csv")


def test_a_gzip_bomb_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "MAX_TABLE_BYTES", 20_000_000)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((b"1" * 999 + b"\n") * 100_000, 1))
    tracemalloc.start()
    try:
        with pytest.raises(UntrustedFileError, match="it goes on after 20 MB"):
            survey_table(tmp_path / "a.csv.gz")
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
