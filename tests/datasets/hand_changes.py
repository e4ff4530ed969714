"""Prepared datasets as people change them by hand, and what is to become of them."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from galaxies.common.durable_files import sha256_of


class Changed:
    """A copy of a dataset, to be changed: its manifest and the rows of its catalogue are written back by `finish`."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.path = Path(shutil.copytree(source, folder))
        self.manifest = json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))
        with (self.path / "catalogue.csv").open(encoding="utf-8", newline="") as stream:
            self.head, *self.rows = csv.reader(stream)
        self.images = np.load(self.path / "images.npy")
        self.table: str | bytes | None = None  # in place of head and rows
        self.text: str | bytes | None = None  # in place of the manifest
        self.leave: set[str] = set()  # files that the change wrote by itself

    def column(self, name: str) -> int:
        return self.head.index(name)

    def set(self, row: int, name: str, value: str) -> None:
        self.rows[row][self.column(name)] = value

    def set_all(self, name: str, value: str) -> None:
        for row in range(len(self.rows)):
            self.set(row, name, value)

    def add(self, name: str, values: list[str]) -> None:
        self.head.append(name)
        for row, value in zip(self.rows, values, strict=True):
            row.append(value)

    def drop(self, name: str) -> None:
        place = self.column(name)
        self.head.pop(place)
        for row in self.rows:
            row.pop(place)

    def as_csv(self, delimiter: str = ",") -> str:
        text = io.StringIO()
        csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([self.head, *self.rows])
        return text.getvalue()

    def count(self) -> None:
        """Let the manifest count what is in the catalogue now."""
        labels = [(row[self.column("split")], row[self.column("morphology")]) for row in self.rows]
        counts = {}
        for split in ("train", "judge", "test"):
            counts[split] = {
                name: labels.count((split, name)) for name in ("spiral", "elliptical", "merger", "edge-on")
            }
        counts |= {name: sum(counts[split][name] for split in ("train", "judge", "test")) for name in counts["train"]}
        self.manifest |= {"count": len(self.rows), "counts": counts}
        known = {name: sum(row[self.column(name)] != "" for row in self.rows) for name in self.head}
        self.manifest["attributes"] = {n: known[n] for n in self.manifest["attributes"] if known.get(n)}

    def keep(self, rows: list[int]) -> None:
        """Keep some of the galaxies, and count again."""
        self.rows, self.images = [self.rows[k] for k in rows], self.images[rows]
        self.count()

    def finish(self, with_sums: bool) -> Path:
        """Write everything; `with_sums` makes the checksums right again."""
        if "images.npy" not in self.leave:
            np.save(self.path / "images.npy", self.images)
        if "catalogue.csv" not in self.leave:
            content = self.as_csv() if self.table is None else self.table
            content = content if isinstance(content, bytes) else content.encode()
            (self.path / "catalogue.csv").write_bytes(content)
        if with_sums and "sums" not in self.leave:
            for name in ("images.npy", "catalogue.csv"):
                if (self.path / name).is_file() and isinstance(self.manifest.get("sha256"), dict):
                    self.manifest["sha256"][name] = sha256_of(self.path / name)
        if "manifest.json" not in self.leave:
            text = json.dumps(self.manifest) if self.text is None else self.text
            (self.path / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        return self.path


def _write(name: str, content: Callable[[Changed], bytes]) -> Callable[[Changed], None]:
    def change(data: Changed) -> None:
        (data.path / name).write_bytes(content(data))
        data.leave.add(name)

    return change


def _replaced(name: str, make: Callable[[Path], object]) -> Callable[[Changed], None]:
    def change(data: Changed) -> None:
        (data.path / name).unlink()
        make(data.path / name)
        data.leave.add(name)

    return change


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _npz(data: Changed) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, images=data.images)
    return stream.getvalue()


def _header(text: bytes, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text


def _of_shape(shape: str, descr: str = "|u1") -> bytes:
    return _header(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n".encode())


def _images(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Changed], None]:
    return _write("images.npy", lambda data: _npy(change(data.images)))


def _manifest(**values: object) -> Callable[[Changed], None]:
    def change(data: Changed) -> None:
        data.manifest |= values

    return change


def _text(content: str | bytes) -> Callable[[Changed], None]:
    def change(data: Changed) -> None:
        data.text = content

    return change


def _table(content: Callable[[Changed], str | bytes]) -> Callable[[Changed], None]:
    def change(data: Changed) -> None:
        data.table = content(data)

    return change


def _sums(values: object) -> Callable[[Changed], None]:
    def change(data: Changed) -> None:
        data.manifest["sha256"] = values
        data.leave.add("sums")

    return change


def _counts(data: Changed) -> None:
    data.manifest["counts"]["train"]["spiral"] += 1


def _fewer_counts(data: Changed) -> None:
    data.manifest["count"] -= 1


def _swapped_counts(data: Changed) -> None:
    counts = data.manifest["counts"]
    counts["train"], counts["test"] = counts["test"], counts["train"]


def _known(data: Changed) -> None:
    data.manifest["attributes"]["size"] -= 1


def _row(row: int, name: str, value: str) -> Callable[[Changed], None]:
    return lambda data: data.set(row, name, value)


def _same_id(data: Changed) -> None:
    data.set(5, "object_id", data.rows[2][data.column("object_id")])


def _dropped_manifest(name: str) -> Callable[[Changed], None]:
    return lambda data: data.manifest.pop(name)


# fmt: off
# {what was changed: (how, a word of the sentence that refuses it once the checksums are right)}
REFUSED: dict[str, tuple[Callable[[Changed], object], str]] = {
    "no split column": (lambda d: d.drop("split"), "split"),
    "no id column": (lambda d: d.drop("object_id"), "object_id"),
    "no class column": (lambda d: d.drop("morphology"), "morphology"),
    "a semicolon table": (_table(lambda d: d.as_csv(";")), "catalogue.csv"),
    "a table by tabs": (_table(lambda d: d.as_csv("\t")), "catalogue.csv"),
    "decimal commas": (lambda d: [d.set(k, "size", "0,15") for k in range(len(d.rows))], "size"),
    "an unknown class": (_row(3, "morphology", "ring"), "'ring'"),
    "a class that moves the cursor": (_row(3, "morphology", "\x1b[2Jring" + "g" * 900), r"\\x1b"),
    "no class": (_row(3, "morphology", ""), "morphology"),
    "an unknown split": (_row(3, "split", "validation"), "'validation'"),
    "a split in capitals": (_row(3, "split", "Train"), "'Train'"),
    "no split": (_row(3, "split", ""), "split"),
    "an infinite size": (_row(0, "size", "inf"), "size"),
    "a size less than nothing": (_row(0, "size", "-0.2"), "size"),
    "an absurd size": (_row(0, "size", "1e30"), "size"),
    "a size beyond doubles": (_row(0, "size", "1e999"), "size"),
    "text for a size": (_row(0, "size", "large"), "'large'"),
    "a date for a size": (_row(0, "size", "2026-11-27"), "size"),
    "text for all sizes": (lambda d: d.set_all("size", "large"), "'large'"),
    "truth for all sizes": (lambda d: d.set_all("size", "True"), "size"),
    "a sentinel for a redshift": (_row(4, "redshift", "-9999"), "redshift"),
    "an absurd redshift": (_row(4, "redshift", "1e30"), "redshift"),
    "an ellipticity of 1.5": (_row(4, "ellipticity", "1.5"), "ellipticity"),
    "a negative pixel scale": (lambda d: d.add("pixel_scale", ["-0.4"] * len(d.rows)), "pixel_scale"),
    "a duplicate id": (_same_id, "object_id"),
    "no id": (_row(1, "object_id", ""), "object_id"),
    "a row more": (lambda d: (d.rows.append(["x1", *d.rows[0][1:]]), d.count()), "rows"),
    "a row less": (lambda d: (d.rows.pop(), d.count()), "rows"),
    "no rows": (lambda d: (d.rows.clear(), d.count()), "count"),
    "an empty table": (_table(lambda d: ""), "catalogue.csv"),
    "a row of too many cells": (lambda d: d.rows[3].append("7"), "catalogue.csv"),
    "rows of too many cells": (lambda d: [row.append("7") for row in d.rows], "catalogue.csv"),
    "a row of too few cells": (lambda d: d.rows[3].__delitem__(slice(1, None)), "row 5"),
    "a row that ends before its class": (lambda d: (d.add("morphology", [row[1] for row in d.rows]), d.head.pop(1),
                                                    [row.pop(1) for row in d.rows], d.rows[3].pop()), "row 5"),
    "two columns of one name": (lambda d: d.add("size", ["0.1"] * len(d.rows)), "size"),
    "a table of NUL bytes": (_table(lambda d: b"\0" * 300), "catalogue.csv"),
    "a picture for a table": (_table(lambda d: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4), "catalogue.csv"),
    "a quote without end": (_table(lambda d: d.as_csv().replace("\nspiral", "") + '"x'), "catalogue.csv"),
    "four planes": (_images(lambda x: np.concatenate([x, x[:, :1]], 1)), "shape"),
    "one plane": (_images(lambda x: x[:, :1]), "shape"),
    "planes last": (_images(lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1))), "shape"),
    "no planes": (_images(lambda x: x[:, 0]), "shape"),
    "pictures that are not square": (_images(lambda x: np.ascontiguousarray(x[:, :, :, :32])), "shape"),
    "smaller pictures": (_images(lambda x: np.ascontiguousarray(x[:, :, ::2, ::2])), "image_size|pixels a side"),
    "no pictures": (_images(lambda x: x[:0]), "shape"),
    "a picture less": (_images(lambda x: x[1:]), "images"),
    "one number": (_images(lambda x: np.uint8(3)), "shape"),
    "float images": (_images(lambda x: (x / 255).astype(np.float32)), "float32"),
    "signed images": (_images(lambda x: x.astype(np.int8)), "int8"),
    "images of records": (_images(lambda x: x.view([("a", np.uint8)])), "uint8"),
    "Fortran's order": (_images(np.asfortranarray), "Fortran"),
    "objects": (_images(lambda x: np.array([x[0], None], dtype=object)), "images.npy"),
    "an .npz named .npy": (_write("images.npy", _npz), "no array"),
    "a pickle named .npy": (_write("images.npy", lambda d: pickle.dumps(d.images)), "no array"),
    "an empty .npy": (_write("images.npy", lambda d: b""), "no array"),
    "a header alone": (_write("images.npy", lambda d: b"\x93NUMPY\x01\x00"), "no array"),
    "a header of another version": (_write("images.npy", lambda d: b"\x93NUMPY\x09\x00" + b" " * 300), "no array"),
    "a header that is deep": (_write("images.npy", lambda d: _header(b"(" * 9000)), "no array"),
    "a header that is code": (_write("images.npy", lambda d: _header(b"__import__('os').getcwd()\n")), "no array"),
    "a huge shape": (_write("images.npy", lambda d: _of_shape("(99999999999, 3, 64, 64)")), "pixels"),
    "a shape beyond 64 bits": (_write("images.npy", lambda d: _of_shape(f"({10**30}, 3, 64, 64)")), "pixels"),
    "a negative shape": (_write("images.npy", lambda d: _of_shape("(-1, 3, 64, 64)")), "shape"),
    "a shape of text": (_write("images.npy", lambda d: _of_shape("('a', 3, 64, 64)")), "no array"),
    "an odd dtype": (_write("images.npy", lambda d: _of_shape("(2, 3, 64, 64)", "O8,V3")), "no array|uint8"),
    "a shortened .npy": (_write("images.npy", lambda d: _npy(d.images)[:-500]), "pixels"),
    "a lengthened .npy": (_write("images.npy", lambda d: _npy(d.images) + b"x"), "pixels"),
    "images.npy a folder": (_replaced("images.npy", Path.mkdir), "folder"),
    "images.npy is not there": (_replaced("images.npy", lambda path: None), "there is no file"),
    "catalogue.csv a folder": (_replaced("catalogue.csv", Path.mkdir), "folder"),
    "catalogue.csv is not there": (_replaced("catalogue.csv", lambda path: None), "there is no file"),
    "manifest.json a folder": (_replaced("manifest.json", Path.mkdir), "folder"),
    "manifest.json is not there": (_replaced("manifest.json", lambda path: None), "no prepared dataset"),
    "format 0": (_manifest(format_version=0), "format version 0"),
    "format '2'": (_manifest(format_version="2"), "format version '2'"),
    "format '1'": (_manifest(format_version="1"), "format version '1'"),
    "format 1.0": (_manifest(format_version=1.0), "format version 1"),
    "format true": (_manifest(format_version=True), "format version True"),
    "format 99": (_manifest(format_version=99), "format version 99"),
    "format null": (_manifest(format_version=None), "format version None"),
    "no format": (_dropped_manifest("format_version"), "format version None"),
    "format [1]": (_manifest(format_version=[1]), "format version a list of 1"),
    "other counts": (_counts, "counts"),
    "another count": (_fewer_counts, "counts"),
    "splits exchanged": (_swapped_counts, "counts"),
    "another number of known sizes": (_known, "known size"),
    "counts of a class that is none": (lambda d: d.manifest["counts"]["train"].update(ring=2), "counts"),
    "count as text": (_manifest(count="160"), "count"),
    "a negative count": (_manifest(count=-1), "count"),
    "a huge count": (_text('{"format_version": 1, "count": ' + "9" * 5000 + "}"), "digits"),
    "counts a list": (_manifest(counts=[1, 2]), "counts"),
    "counts null": (_manifest(counts=None), "counts"),
    "no counts": (_dropped_manifest("counts"), "counts is missing"),
    "no count": (_dropped_manifest("count"), "count is missing"),
    "no checksums": (_dropped_manifest("sha256"), "sha256 is missing"),
    "checksums null": (_sums(None), "sha256"),
    "a checksum as a number": (_sums({"images.npy": 3, "catalogue.csv": "a"}), "sha256"),
    "one checksum": (_sums({"catalogue.csv": "a"}), "sha256.*missing"),
    "another image_size": (_manifest(image_size=128), "pixels"),
    "image_size as text": (_manifest(image_size="64"), "image_size"),
    "image_size null": (_manifest(image_size=None), "image_size"),
    "no image_size": (_dropped_manifest("image_size"), "image_size is missing"),
    "no crop": (_dropped_manifest("crop"), "crop is missing"),
    "crop as text": (_manifest(crop="0.5"), "crop"),
    "a negative crop": (_manifest(crop=-0.5), "crop"),
    "an attribute of no such name": (_manifest(attributes={"brillance": 3}), "brillance"),
    "attributes a list": (_manifest(attributes=["size"]), "attributes"),
    "no attributes": (_dropped_manifest("attributes"), "attributes is missing"),
    "source a number": (_manifest(source=3), "source"),
    "rule a list": (_manifest(rule=["paper"]), "rule"),
    "deep JSON": (_text('{"a":' * 100_000), "deep"),
    "JSON that is a little too deep": (_manifest(note=json.loads("[" * 200 + "]" * 200)), "deep"),
    "NaN in the manifest": (_text('{"format_version": 1, "crop": NaN}'), "NaN"),
    "half a manifest": (lambda d: setattr(d, "text", json.dumps(d.manifest)[:200]), "no JSON"),
    "a manifest of nothing": (_text(""), "no JSON"),
    "a manifest that is a list": (_text("[1, 2]"), "mapping"),
    "a manifest that is null": (_text("null"), "mapping"),
    "a manifest in UTF-16": (lambda d: setattr(d, "text", json.dumps(d.manifest).encode("utf-16")), "UTF-8"),
    "a manifest in Latin-1": (_text('{"source": "é"}'.encode("latin-1")), "UTF-8"),
    "a name twice in the manifest": (_text('{"format_version": 1, "format_version": 1}'), "twice"),
}
if os.name == "posix":
    REFUSED |= {
        "images.npy a pipe": (_replaced("images.npy", os.mkfifo), "pipe"),
        "images.npy a link to a device": (_replaced("images.npy", lambda p: p.symlink_to("/dev/zero")), "device"),
        "images.npy a link to itself": (_replaced("images.npy", lambda p: p.symlink_to("images.npy")), "cannot"),
        "images.npy a link to nowhere": (_replaced("images.npy", lambda p: p.symlink_to("nowhere")), "no file"),
        "images.npy a link to a folder": (_replaced("images.npy", lambda p: p.symlink_to("..")), "folder"),
        "catalogue.csv a pipe": (_replaced("catalogue.csv", os.mkfifo), "pipe"),
        "catalogue.csv a link to a device": (_replaced("catalogue.csv", lambda p: p.symlink_to("/dev/zero")), "device"),
        "manifest.json a pipe": (_replaced("manifest.json", os.mkfifo), "pipe"),
        "manifest.json a link to a device": (_replaced("manifest.json", lambda p: p.symlink_to("/dev/zero")), "device"),
    }


def _linked(data: Changed) -> None:
    data.path.joinpath("images.npy").rename(data.path / "elsewhere.npy")
    (data.path / "images.npy").symlink_to("elsewhere.npy")
    data.leave.add("images.npy")


def _shuffled(data: Changed) -> None:
    order = np.random.default_rng(0).permutation(len(data.rows))
    data.rows, data.images = [data.rows[k] for k in order], data.images[order]


# {what was changed: how}; these are read rightly, once the checksums are right again.
READ: dict[str, Callable[[Changed], object]] = {
    "nothing": lambda d: None,
    "a table with a byte order mark": _table(lambda d: d.as_csv().encode("utf-8-sig")),
    "lines as Windows ends them": _table(lambda d: d.as_csv().replace("\n", "\r\n")),
    "everything in quotes": _table(lambda d: "".join(f'"{line}"\n'.replace(",", '","') for line in d.as_csv().split())),
    "another order of columns": _table(lambda d: "".join(
        ",".join(reversed(line.split(","))) + "\n" for line in d.as_csv().split()
    )),
    "another order of rows": _shuffled,
    "classes in capitals": lambda d: [d.set(k, "morphology", row[d.column("morphology")].upper().replace("-", "_"))
                                      for k, row in enumerate(d.rows)],
    "a column of one's own": lambda d: d.add("comment", ["spiral, “nice”"] * len(d.rows)),
    "half of the galaxies": lambda d: d.keep(list(range(0, len(d.rows), 2))),
    "an attribute less": lambda d: (d.drop("redshift"), d.count()),
    "an unknown size": lambda d: (d.set(0, "size", ""), d.count()),
    "another split": lambda d: (d.set(0, "split", "test"), d.count()),
    "one more entry in the manifest": _manifest(who="me", when=[1, {"a": None}]),
    "no source": _manifest(source=None),
    "a manifest with a byte order mark": lambda d: d.leave.add("bom"),
    "a header of version 2": _write("images.npy", lambda d: _version_2(d.images)),
    **({"images.npy a link to a file": _linked} if os.name == "posix" else {}),
}
# fmt: on


def _version_2(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, (2, 0))
    return stream.getvalue()
