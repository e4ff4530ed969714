"""Grids of galaxies: pixels kept, sizes, and files that are whole or not there."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from galaxies.common.errors import UserError
from galaxies.images.grids import labelled_grid, plain_grid, save_picture, to_picture


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def pixels(picture):
    return np.asarray(picture.convert("RGB"))


def places_of(image, picture):
    """Return every (row, column) at which an image (3, S, S) lies in a picture, pixel for pixel."""
    tile, canvas = image.permute(1, 2, 0).numpy(), pixels(picture)
    side = tile.shape[0]
    if min(canvas.shape[:2]) < side:
        return []
    # Few places agree in the first row, so whole tiles are compared only there.
    rows = np.lib.stride_tricks.sliding_window_view(canvas[: canvas.shape[0] - side + 1], side, axis=1)
    candidates = np.argwhere((rows.transpose(0, 1, 3, 2) == tile[0]).all((2, 3)))
    return [(y, x) for y, x in candidates.tolist() if (canvas[y : y + side, x : x + side] == tile).all()]


# One image


@pytest.mark.parametrize("side", [1, 64, 100])
def test_to_picture_keeps_every_pixel(side):
    image = noise(3, side, side)
    picture = to_picture(image)
    assert picture.mode == "RGB"
    assert picture.size == (side, side)
    np.testing.assert_array_equal(np.asarray(picture), image.permute(1, 2, 0).numpy())


def test_to_picture_keeps_planes_rows_and_columns_apart():
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    image[0, 1, 2], image[2, 3, 0] = 200, 90
    picture = to_picture(image)
    # Pillow counts (column, row).
    assert picture.getpixel((2, 1)) == (200, 0, 0)
    assert picture.getpixel((0, 3)) == (0, 0, 90)


# Plain grids


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 17])
def test_plain_grid_keeps_every_image_once_and_in_reading_order(count):
    images = noise(count, 3, 16, 16)
    picture = plain_grid(images)
    places = [places_of(image, picture) for image in images]
    assert [len(found) for found in places] == [1] * count
    places = [found[0] for found in places]
    assert places == sorted(places)
    # No two overlap.
    assert all(max(abs(a[0] - b[0]), abs(a[1] - b[1])) >= 16 for a, b in itertools.combinations(places, 2))


def test_plain_grid_is_nearly_square():
    for count in (4, 9, 12, 30, 64):
        picture = plain_grid(noise(count, 3, 32, 32))
        columns = math.isqrt(count - 1) + 1
        assert columns * 32 <= picture.width <= columns * 32 * 1.25, count
        assert abs(picture.width - picture.height) <= 40, count


@pytest.mark.parametrize(("num_columns", "count", "num_rows"), [(1, 3, 3), (4, 8, 2), (4, 9, 3), (5, 5, 1)])
def test_plain_grid_columns(num_columns, count, num_rows):
    images = noise(count, 3, 16, 16)
    picture = plain_grid(images, num_columns)
    (places,) = zip(*(places_of(image, picture) for image in images), strict=True)
    assert len({x for _, x in places}) == min(num_columns, count)
    assert len({y for y, _ in places}) == num_rows
    # Thin gaps: no more than an eighth of the picture is not image.
    assert picture.width * picture.height <= num_columns * num_rows * (16 + 16) ** 2


def test_plain_grid_reads_any_memory_layout():
    images = noise(4, 3, 16, 16)
    expected = pixels(plain_grid(images))
    channels_last = images.contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(pixels(plain_grid(channels_last)), expected)


# Labelled grids


def flat(*colors, side):
    return torch.tensor(colors, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, side, side)


@pytest.mark.parametrize("side", [32, 64, 128, 256])
def test_labelled_grid_places_every_image(side):
    # Flat colors, which stay what they are if images are enlarged.
    colors = [[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(255, 255, 0), (0, 255, 255), (255, 0, 255)]]
    rows = [flat(*row, side=side) for row in colors]
    canvas = pixels(labelled_grid(rows, ["spiral", "elliptical\nreal"], [["a", "b", "c"], []], "Epoch 10"))
    boxes = []
    for color in itertools.chain(*colors):
        places = np.argwhere((canvas == color).all(2))
        (top, left), (bottom, right) = places.min(0), places.max(0) + 1
        # A whole square, no smaller than the image.
        assert bottom - top == right - left >= side
        assert len(places) == (bottom - top) * (right - left)
        boxes.append((top, left))
    (tops, lefts) = zip(*boxes, strict=True)
    assert tops[0] == tops[1] == tops[2] < tops[3] == tops[4] == tops[5]
    assert lefts[:3] == lefts[3:]
    assert lefts[0] < lefts[1] < lefts[2]
    # Room for the labels.
    assert lefts[0] > 20


def test_labelled_grid_keeps_the_pixels_of_large_images():
    images = noise(3, 3, 128, 128)
    picture = labelled_grid([images], ["spiral"])
    assert [len(places_of(image, picture)) for image in images] == [1, 1, 1]


def test_labelled_grid_turns_nothing():
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    image[:, 0, :32, 32:] = 255  # red at the top right
    image[:, 2, 32:, :32] = 255  # blue at the bottom left
    canvas = pixels(labelled_grid([image], [""])).astype(int)
    red = np.argwhere((canvas[:, :, 0] > 200) & (canvas[:, :, 2] < 50)).mean(0)
    blue = np.argwhere((canvas[:, :, 2] > 200) & (canvas[:, :, 0] < 50)).mean(0)
    assert red[0] < blue[0] - 30
    assert red[1] > blue[1] + 30


def test_labelled_grid_draws_its_words():
    rows = [torch.zeros(2, 3, 64, 64, dtype=torch.uint8)]
    plain = labelled_grid(rows, ["spiral"])
    texts = {
        "label": labelled_grid(rows, ["merger"]),
        "second line": labelled_grid(rows, ["spiral\nreal"]),
        "captions": labelled_grid(rows, ["spiral"], [["0.12", "0.20"]]),
        "title": labelled_grid(rows, ["spiral"], title="Epoch 10"),
    }
    for name, picture in texts.items():
        assert picture.size != plain.size or (pixels(picture) != pixels(plain)).any(), name
    # The second line is there and fainter than the first.
    first, second = (pixels(labelled_grid(rows, [label])).astype(int).sum(2) for label in ("real", "\nreal"))
    assert 0 < second.max() < first.max()


def test_labelled_grid_with_rows_of_different_lengths():
    rows = [noise(4, 3, 64, 64, seed=1), noise(2, 3, 64, 64, seed=2)]
    picture = labelled_grid(rows, ["a", "b"], [[], ["x", "y"]])
    full = labelled_grid([rows[0], rows[0]], ["a", "b"], [[], ["x", "y", "z", "w"]])
    assert picture.size == full.size


# Saving


def test_save_picture(tmp_path):
    image = noise(3, 32, 32)
    path = tmp_path / "grid.png"
    save_picture(to_picture(image), path)
    with Image.open(path) as saved:
        assert saved.format == "PNG"
        np.testing.assert_array_equal(pixels(saved), image.permute(1, 2, 0).numpy())
    assert [p.name for p in tmp_path.iterdir()] == ["grid.png"]


def test_save_picture_replaces_an_older_one(tmp_path):
    path = tmp_path / "grid.png"
    save_picture(to_picture(noise(3, 32, 32)), path)
    newer = noise(3, 16, 16, seed=1)
    save_picture(to_picture(newer), path)
    with Image.open(path) as saved:
        assert saved.size == (16, 16)
    assert [p.name for p in tmp_path.iterdir()] == ["grid.png"]


def test_a_failed_save_leaves_the_older_picture(tmp_path, monkeypatch):
    path = tmp_path / "grid.png"
    save_picture(to_picture(noise(3, 32, 32)), path)
    before = path.read_bytes()
    picture = to_picture(noise(3, 16, 16))

    def break_off(file, *args, **kwargs):
        if hasattr(file, "write"):
            file.write(b"half")
        else:
            with open(file, "wb") as stream:  # noqa: PTH123
                stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(picture, "save", break_off)
    with pytest.raises(UserError, match=r"grid\.png could not be written: disk full"):
        save_picture(picture, path)
    assert path.read_bytes() == before
