"""A dataset that was written can be read again, whatever its ids were."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_physics import MORPHOLOGY_NAMES
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.writing import DatasetWriter
from galaxies.tables.identifiers import fault_of

# fmt: off
ODD = ["NA", "nan", "None", "", "007", "1e5", "-9999", "587722981741363101", '"quoted"', 'a "b" c', "a,b", "#1", "=1+1",
       "a;b", "a\tb", "'", '"', ",", "\\", "True", "inf", "é", "e\u0301", "CON", "a/b", "..", "x" * 255, "x" * 256,
       " a", "a\nb", "a\rb", "\u202ea", "\ufeffa", "\x00", "\ud800", "object_id", "0x1F", "1_000", "٣", "\xa0a"]
# fmt: on
IDS = st.one_of(st.sampled_from(ODD), st.text(max_size=6), st.text(st.sampled_from("\"',;\t #\n\r=e1.0N"), max_size=5))


def write(out, ids) -> None:
    images = np.zeros((len(ids), 3, 64, 64), np.uint8)
    classes = [MORPHOLOGY_NAMES[place % 4] for place in range(len(ids))]
    with DatasetWriter(out, 64, 0.5, {}, overwrite=True, allow_empty_class=True) as writer:
        writer.append(images, ids, classes, {"redshift": np.full(len(ids), 0.1)})


@settings(max_examples=10, deadline=None, database=None, derandomize=True)
@given(st.lists(IDS, min_size=1, max_size=8, unique=True))
def test_what_is_written_is_read_again(tmp_path_factory, ids):
    out = tmp_path_factory.getbasetemp() / "ids"
    if faulty := [text for text in ids if fault_of(text)]:
        with pytest.raises(UserError, match=r"object id .* (cannot be written|occurs twice)"):
            write(out, ids)
        ids = [text for text in ids if text not in faulty]
    if ids:
        write(out, ids)
        data = PreparedDataset.open(out)
        assert data.catalogue["object_id"].tolist() == ids
        assert (data.catalogue["redshift"] == 0.1).all()


def test_every_odd_id_is_either_written_or_refused(tmp_path):
    fine = [text for text in ODD if not fault_of(text)]
    assert {"NA", "nan", "007", 'a "b" c', "a,b", "#1", '"', ",", "é", "x" * 255, "object_id", "a;b"} <= set(fine)
    assert not {"", "x" * 256, " a", "a\nb", "a\rb", "\x00", "\ud800", "\u202ea", "\ufeffa", "a\tb"} & set(fine)
    write(tmp_path / "d", fine)
    assert PreparedDataset.open(tmp_path / "d").catalogue["object_id"].tolist() == fine
