"""Finding and reading cutouts: scaled decoding, zip files, rejections, order."""

import io
import os
import threading
import zipfile
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from galaxies.common.errors import UserError
from galaxies.datasets import cutouts
from galaxies.datasets.cutout_blocks import read_blocks, read_cutouts
from galaxies.datasets.cutouts import CutoutSource, LeftOut, Rejection, decode_cutout


def galaxy(seed: int = 0, side: int = 424) -> Image.Image:
    """Draw a coloured blob on noise, like a survey's picture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    blob = np.exp(-((x / 0.08) ** 2 + (y / 0.05) ** 2) / 2)[..., None] * [200, 150, 90]
    noise = rng.normal(10, 4, (side, side, 3))
    return Image.fromarray((blob + noise).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def full_decode(data: bytes, size: int, crop: float) -> np.ndarray:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = image.size[0]
    low = (side - round(side * crop)) / 2
    box = (low, low, side - low, side - low)
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS, box=box)).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("side", "size", "crop", "scale"),
    [(424, 64, 0.5, 2), (423, 64, 0.5, 2), (424, 64, 1.0, 4), (424, 128, 0.5, 1), (1024, 64, 0.5, 8)],
)
def test_scaled_decode_matches_full_decode(monkeypatch, side, size, crop, scale):
    data = encoded(galaxy(side=side))
    used = []
    draft = cutouts._draft
    monkeypatch.setattr(cutouts, "_draft", lambda *a: used.append(draft(*a)) or used[-1])
    image, crop_px, notes = decode_cutout(data, size, crop)
    assert notes == ()
    assert used == [scale]
    assert image.shape == (3, size, size)
    assert image.dtype == np.uint8
    assert crop_px == round(side * crop)
    difference = np.abs(image.astype(int) - full_decode(data, size, crop)).mean()
    assert difference < 0.5


def test_the_crop_is_central_and_planes_are_rgb():
    pixels = np.zeros((256, 256, 3), np.uint8)
    pixels[64:192, 64:128] = (200, 100, 50)
    pixels[64:192, 128:192] = (10, 20, 240)
    image, _, _ = decode_cutout(encoded(Image.fromarray(pixels), "PNG"), 128, 0.5)
    np.testing.assert_array_equal(image[:, 20, 20], [200, 100, 50])
    np.testing.assert_array_equal(image[:, 100, 110], [10, 20, 240])
    np.testing.assert_array_equal(image.transpose(1, 2, 0), pixels[64:192, 64:192])


def noisy_grey() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (256, 256), dtype=np.uint8)


JPEG = encoded(galaxy())
REJECTED = {
    "empty file": (b"", Rejection.NOT_AN_IMAGE),
    "text": (b"<html>404</html>" * 99, Rejection.NOT_AN_IMAGE),
    "gif": (encoded(galaxy(side=128), "GIF"), Rejection.NOT_AN_IMAGE),
    "half a JPEG": (JPEG[: len(JPEG) // 2], Rejection.CORRUPT),
    "header only": (JPEG[:100], Rejection.CORRUPT),
    "half a PNG": (encoded(galaxy(side=256), "PNG")[:30000], Rejection.CORRUPT),
    "garbage after the magic": (JPEG[:4] + os.urandom(5000), Rejection.CORRUPT),
    "mode L": (encoded(Image.fromarray(noisy_grey())), Rejection.GREYSCALE),
    "grey as RGB": (encoded(Image.fromarray(noisy_grey()).convert("RGB")), Rejection.GREYSCALE),
    "16 bits": (
        encoded(Image.fromarray(noisy_grey().astype(np.uint16) * 256), "PNG"),
        Rejection.GREYSCALE,
    ),
    "not square": (encoded(galaxy().resize((424, 400))), Rejection.WRONG_SHAPE),
    "too small": (encoded(galaxy(side=126)), Rejection.TOO_SMALL),
    "black": (encoded(Image.new("RGB", (256, 256))), Rejection.BLANK),
    "one colour": (encoded(Image.new("RGB", (256, 256), (40, 30, 20)), "PNG"), Rejection.BLANK),
    "enormous": (encoded(Image.new("RGB", (9000, 9000)), "PNG"), Rejection.TOO_LARGE),
}


@pytest.mark.parametrize("name", REJECTED)
def test_rejections(name):
    data, reason = REJECTED[name]
    assert decode_cutout(data, 64).reason is reason


def test_pictures_of_other_modes_are_converted():
    for mode, kind in (("RGBA", "PNG"), ("P", "PNG"), ("CMYK", "JPEG")):
        image, _, _ = decode_cutout(encoded(galaxy(side=256).convert(mode), kind), 64)
        assert image.shape == (3, 64, 64)


def fill(folder: Path, names: tuple[str, ...] = ("1.jpg", "2.jpg", "3.jpg")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        (folder / name).write_bytes(encoded(galaxy(seed, 256)))
    (folder / "._1.jpg").write_bytes(b"\x00\x05\x16\x07 AppleDouble")
    (folder / "notes.txt").write_text("no picture")


def pack(archive: Path, folder: Path, prefix: str = "images/") -> None:
    with zipfile.ZipFile(archive, "w") as target:
        for file in sorted(folder.iterdir()):
            target.write(file, prefix + file.name)
        target.writestr("__MACOSX/images/._2.jpg", b"\x00\x05\x16\x07")
        target.writestr("__MACOSX/images/2.jpg", b"\x00\x05\x16\x07")


def test_places_where_pictures_are_found(tmp_path):
    fill(tmp_path / "pictures")
    layouts = {name: tmp_path / name for name in ("plain", "images", "gz2", "nested", "zip", "other", "deep")}
    fill(layouts["plain"])
    fill(layouts["images"] / "images")
    fill(layouts["gz2"] / "images_gz2")
    fill(layouts["nested"] / "images_gz2" / "images")
    for name, archive in (("zip", "images_gz2.zip"), ("other", "cutouts.zip"), ("deep", "a.zip")):
        layouts[name].mkdir()
        pack(layouts[name] / archive, tmp_path / "pictures", "a/b/" if name == "deep" else "images/")
    expected = (tmp_path / "pictures" / "2.jpg").read_bytes()
    for name, folder in layouts.items():
        with CutoutSource(folder) as source:
            assert source.names == ("1.jpg", "2.jpg", "3.jpg"), name
            assert source.read("2.jpg") == expected, name
    with CutoutSource(layouts["zip"] / "images_gz2.zip") as source:
        assert source.read("2.jpg") == expected


def test_pictures_in_several_folders_keep_their_folder(tmp_path):
    fill(tmp_path / "spiral")
    fill(tmp_path / "merger", ("1.jpg",))
    with CutoutSource(tmp_path) as source:
        assert source.names == ("merger/1.jpg", "spiral/1.jpg", "spiral/2.jpg", "spiral/3.jpg")
        assert source.read("spiral/2.jpg") == source.read("spiral\\2.JPG")
        assert source.read("spiral/2.jpg") is not None


def test_names_in_capitals_and_other_kinds(tmp_path):
    fill(tmp_path, ("1.JPG", "2.jpeg", "3.PNG"))
    with CutoutSource(tmp_path) as source:
        for name, file in (("1.jpg", "1.JPG"), ("2.jpg", "2.jpeg"), ("3.jpg", "3.PNG"), ("3", "3.PNG")):
            assert source.read(name) == (tmp_path / file).read_bytes()
        assert source.read("4.jpg") is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no JPEG or PNG image"),
        ({"a.zip": b"", "b.zip": b""}, "holds 2 zip files"),
        ({"images_gz2.zip": b"PK\x03\x04 half of it"}, "is not a complete zip file"),
    ],
)
def test_no_pictures(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        CutoutSource(tmp_path)


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        CutoutSource(tmp_path / "nowhere")


@pytest.mark.parametrize("packed", [False, True])
def test_reading_keeps_the_order_and_names_the_missing(tmp_path, packed):
    fill(tmp_path / "images")
    (tmp_path / "images" / "bad.jpg").write_bytes(JPEG[:3000])
    if packed:
        pack(tmp_path / "images_gz2.zip", tmp_path / "images")
    names = ["3.jpg", "1.jpg", "9.jpg", "2.jpg", "bad.jpg"] * 40
    with CutoutSource(tmp_path / "images_gz2.zip" if packed else tmp_path) as source:
        results = list(read_cutouts(source, names, 64, workers=4))
        one = decode_cutout((tmp_path / "images" / "1.jpg").read_bytes(), 64)[0]
    assert [r.name for r in results] == names
    reasons = [None, None, Rejection.MISSING, None, Rejection.CORRUPT] * 40
    assert [r.rejection for r in results] == reasons
    assert all((r.image is None) == (r.rejection is not None) for r in results)
    np.testing.assert_array_equal(results[6].image, one)
    assert results[6].crop_px == 128


def test_a_damaged_zip_entry_is_one_rejection(tmp_path):
    fill(tmp_path / "images")
    pack(tmp_path / "x.zip", tmp_path / "images")
    data = bytearray((tmp_path / "x.zip").read_bytes())
    data[data.find(b"2.jpg") + 2000] ^= 0xFF  # the entry's checksum no longer fits
    (tmp_path / "x.zip").write_bytes(data)
    with CutoutSource(tmp_path / "x.zip") as source:
        results = list(read_cutouts(source, source.names, 64))
    assert [r.rejection for r in results] == [None, Rejection.CORRUPT, None]


def test_a_zip_entry_that_cannot_be_read_is_one_rejection(monkeypatch, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")

    def refuse(source, name):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(CutoutSource, "find", refuse)
    with CutoutSource(tmp_path) as source:
        (block,) = read_blocks(source, ["a.png"], 64, 0.5, 1)
    assert block.rejected == {0: LeftOut(Rejection.UNREADABLE, "Input/output error")}


def test_reading_stays_close_behind_the_reader_and_stops(tmp_path):
    fill(tmp_path)
    taken = count()
    names = (("1.jpg", next(taken))[0] for _ in range(100_000))
    threads = threading.active_count()
    with CutoutSource(tmp_path) as source:
        reader = read_cutouts(source, names, 64, workers=2)
        next(reader)
        reader.close()
    assert next(taken) <= 4 * 32
    assert threading.active_count() == threads


REAL = os.environ.get("GALAXY_REAL_DATA")


@pytest.mark.skipif(not REAL, reason="GALAXY_REAL_DATA names no folder of real galaxies")
def test_real_galaxies_differ_little_from_the_full_decode():
    files = sorted(Path(REAL, "gz2", "images").glob("*.jpg"))[:100]
    differences = []
    for file in files:
        data = file.read_bytes()
        image, _, _ = decode_cutout(data, 64)
        differences.append(np.abs(image.astype(int) - full_decode(data, 64, 0.5)).mean())
    assert np.mean(differences) < 0.4
    assert max(differences) < 0.8


def as_png(pixels: np.ndarray) -> bytes:
    return encoded(Image.fromarray(pixels), "PNG")


@pytest.mark.parametrize(
    ("data", "crop", "reason", "detail"),
    [
        (encoded(galaxy(side=69), "PNG"), 0.5, Rejection.TOO_SMALL, "69 pixels a side, of which --crop 0.5 leaves 34 "),
        (encoded(galaxy(side=69), "PNG"), 0.5, Rejection.TOO_SMALL, ": --crop 1.0 takes the whole 69 pixels"),
        (encoded(galaxy(side=50), "PNG"), 0.5, Rejection.TOO_SMALL, "leaves 25 and --size 64 needs 64"),
        (encoded(galaxy(side=63), "PNG"), 1.0, Rejection.TOO_SMALL, "leaves 63 and --size 64 needs 64"),
        (encoded(galaxy().resize((424, 400))), 0.5, Rejection.WRONG_SHAPE, "424 x 400 pixels, and not square"),
        (encoded(galaxy(side=128), "GIF"), 0.5, Rejection.NOT_AN_IMAGE, "GIF"),
        (encoded(galaxy(side=128), "TIFF"), 0.5, Rejection.NOT_AN_IMAGE, "TIFF"),
        (b"<html>404</html>", 0.5, Rejection.NOT_AN_IMAGE, "a web page"),
        (as_png(np.full((128, 128), 9000, np.uint16)), 0.5, Rejection.GREYSCALE, "16 bits a pixel"),
    ],
)
def test_what_was_found_is_said(data, crop, reason, detail):
    left_out = decode_cutout(data, 64, crop)
    assert left_out.reason is reason and detail in left_out.detail


def test_no_crop_is_advised_that_would_not_help():
    assert "1.0 takes" not in decode_cutout(encoded(galaxy(side=50), "PNG"), 64).detail
    assert "1.0 takes" not in decode_cutout(encoded(galaxy(side=63), "PNG"), 64, 1.0).detail


def test_what_alpha_hides_is_prepared_as_black():
    seen = np.asarray(galaxy(side=128))
    alpha = np.zeros((128, 128), np.uint8)
    alpha[32:96, 32:96] = 255
    hidden = np.where(alpha[..., None] > 0, seen, 255).astype(np.uint8)
    image, _, notes = decode_cutout(as_png(np.dstack([hidden, alpha])), 128, 1.0)
    np.testing.assert_array_equal(image.transpose(1, 2, 0), np.where(alpha[..., None] > 0, seen, 0))
    assert notes == ("transparent parts shown on black",)
    assert decode_cutout(as_png(np.dstack([hidden, alpha * 0])), 128, 1.0).reason is Rejection.BLANK


def test_why_a_file_is_not_read_is_said(tmp_path, monkeypatch):
    fill(tmp_path, ("1.jpg", "shut.jpg", "gone.jpg", "sick.jpg"))
    (tmp_path / "folder.png").mkdir()
    names = ["1.jpg", "shut.jpg", "gone.jpg", "sick.jpg", "folder.png"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        names.append("pipe.png")
    opened = Path.open

    def refusing(path, *args, **kwargs):
        if path.name == "shut.jpg":
            raise PermissionError(13, "Permission denied")
        if path.name == "sick.jpg":
            raise OSError(5, "Input/output error")
        return opened(path, *args, **kwargs)

    with CutoutSource(tmp_path) as source:
        (tmp_path / "gone.jpg").unlink()
        monkeypatch.setattr(Path, "open", refusing)
        (block,) = read_blocks(source, names, 64)
    found = {block.names[place]: left_out for place, left_out in block.rejected.items()}
    assert found.pop("shut.jpg") == LeftOut(Rejection.NOT_ALLOWED, "cannot be read: you are not allowed to")
    assert found.pop("gone.jpg").reason is Rejection.MISSING
    assert found.pop("sick.jpg") == LeftOut(Rejection.UNREADABLE, "cannot be read: Input/output error")
    assert found.pop("folder.png") == LeftOut(Rejection.NOT_A_FILE, "is a folder where a file is expected")
    assert set(found) == set(names[5:])
    assert all(left_out.reason is Rejection.NOT_A_FILE and "a pipe" in left_out.detail for left_out in found.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (JPEG, "is no zip file but JPEG: name the folder"),
        (b"\x1f\x8b\x08", "is no zip file but a gzip file"),
        (b"", "is no zip file but an empty file"),
        (b"what", "is not a complete zip file"),
    ],
)
def test_a_file_that_is_no_zip_file(tmp_path, content, message):
    (tmp_path / "pictures").write_bytes(content)
    with pytest.raises(UserError, match=message):
        CutoutSource(tmp_path / "pictures")


def test_pictures_of_other_kinds_alone(tmp_path):
    (tmp_path / "1.tif").write_bytes(b"II*\0")
    with pytest.raises(
        UserError, match=r"no JPEG or PNG image in .* \(1 other files, such as '1.tif': save them as PNG\)"
    ):
        CutoutSource(tmp_path)


def test_a_folder_that_may_not_be_searched_is_said(tmp_path, monkeypatch):
    fill(tmp_path / "open")
    fill(tmp_path / "shut", ("9.jpg",))
    scan = os.scandir

    def refusing(path):
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with CutoutSource(tmp_path) as source:
        assert source.names == ("1.jpg", "2.jpg", "3.jpg")
        assert source.unlisted == [f"{tmp_path / 'shut'} cannot be searched: Permission denied"]
