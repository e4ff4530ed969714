"""Pictures as a viewer shows them, held against formulas: alpha, depth, palettes, ink, profiles, gamma, orientation."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from galaxies.images.as_displayed import DeepPictureError, Displayed, as_displayed
from galaxies.images.opening import kind_of, open_picture
from tests.images.test_opening import chunk

COLORS = np.random.default_rng(3).integers(0, 256, (16, 24, 3), dtype=np.uint8)
GREY = COLORS[..., 0]


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def shown(data: bytes) -> tuple[np.ndarray, Displayed]:
    displayed = as_displayed(open_picture(data))
    assert displayed.image.mode == "RGB"
    return np.asarray(displayed.image, int), displayed


def raw_png(pixels: np.ndarray, kind: int, *chunks: bytes) -> bytes:
    """Write a PNG of unsigned whole numbers (H, W, C) without any library; kind as in the PNG specification."""
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, kind, 0, 0, 0)
    big = pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in big))
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", rows), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_what_says_nothing_of_its_colours_is_left_as_it_is():
    for data in (encoded(Image.fromarray(COLORS)), raw_png(COLORS, 2)):
        pixels, displayed = shown(data)
        assert np.array_equal(pixels, COLORS) and not displayed.grey and displayed.notes == ()


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_transparent_parts_are_shown_on_black(depth):
    alpha = np.random.default_rng(4).integers(0, 256, (16, 24), dtype=np.uint8)
    alpha[:4], alpha[4:8] = 0, 255
    whole = np.dstack([COLORS, alpha]).astype(depth)
    pixels, displayed = shown(raw_png(whole * (257 if depth is np.uint16 else 1), 6))
    expected = COLORS.astype(float) * alpha[..., None] / 255
    assert np.abs(pixels - expected).max() <= 1 and not pixels[:4].any()
    assert np.array_equal(pixels[4:8], COLORS[4:8])
    assert displayed.notes[-1] == "transparent parts shown on black"


def test_alpha_that_hides_nothing_is_not_spoken_of():
    pixels, displayed = shown(raw_png(np.dstack([COLORS, np.full_like(GREY, 255)]), 6))
    assert np.array_equal(pixels, COLORS) and displayed.notes == ()


def test_colours_beneath_alpha_are_none():
    hidden = np.dstack([np.where(np.arange(24)[None, :, None] < 12, GREY[..., None], COLORS), np.full_like(GREY, 255)])
    assert not shown(raw_png(hidden, 6))[1].grey
    hidden[:, 12:, 3] = 0
    assert shown(raw_png(hidden, 6))[1].grey


@pytest.mark.parametrize("transparency", [bytes([0, 128, 255]), 1])
def test_a_palette_may_be_transparent(transparency):
    palette = np.array([[255, 255, 255], [40, 50, 60], [250, 240, 230]])
    places = np.arange(16 * 24).reshape(16, 24) % 3
    picture = Image.fromarray(places.astype(np.uint8)).convert("L")
    picture.putpalette(palette.ravel().tolist())
    pixels, _ = shown(encoded(picture, transparency=transparency))
    alpha = np.array([0, 128, 255] if transparency != 1 else [255, 0, 255])
    assert np.abs(pixels - (palette * alpha[:, None] / 255)[places]).max() <= 1


@pytest.mark.parametrize("depth, factor", [(np.uint8, 1), (np.uint16, 256)])
def test_one_colour_may_stand_for_nothing(depth, factor):
    key = COLORS[2, 3]
    of_file = (COLORS.astype(np.uint16) * factor).astype(depth)
    nothing = chunk(b"tRNS", struct.pack(">3H", *(int(level) * factor for level in key)))
    pixels, _ = shown(raw_png(of_file, 2, nothing))
    expected = COLORS.copy()
    expected[(key == COLORS).all(-1)] = 0
    assert np.array_equal(pixels, expected)


def test_sixteen_bits_of_colour_are_shown_by_their_upper_eight():
    deep = COLORS.astype(np.uint16) * 256 + np.random.default_rng(5).integers(0, 256, COLORS.shape).astype(np.uint16)
    pixels, displayed = shown(raw_png(deep, 2))
    assert np.array_equal(pixels, COLORS) and displayed.notes == ("16 bits a color, as 8",)
    grey_with_alpha = np.dstack([deep[..., 0], np.full((16, 24), 65535, np.uint16)])
    pixels, displayed = shown(raw_png(grey_with_alpha, 4))
    assert np.array_equal(pixels, np.dstack([GREY] * 3)) and displayed.grey
    with pytest.raises(DeepPictureError, match="16 bits a pixel"):
        shown(raw_png(deep[..., :1], 0))


@pytest.mark.parametrize("picture", [Image.fromarray(GREY), Image.fromarray(GREY).convert("RGB")])
@pytest.mark.parametrize("mode", [None, "LA", "P", "RGBA", "1"])
def test_grey_is_grey_in_every_form(picture, mode):
    if mode == "P" and picture.mode == "RGB":
        picture = picture.quantize(64)
    data = encoded(picture.convert(mode) if mode else picture)
    if mode or picture.mode == "L":
        assert shown(data)[1].grey
    pixels, _ = shown(data)
    assert np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2])


def test_ink_is_turned_into_light():
    inks = np.array([[200, 30, 90, 40], [0, 0, 0, 0], [0, 0, 0, 255], [10, 220, 60, 128]], np.uint8)
    flat = np.repeat(np.repeat(inks.reshape(2, 2, 4), 16, 0), 16, 1)
    pixels, _ = shown(encoded(Image.fromarray(flat, "CMYK"), "JPEG", quality=100))
    expected = (255.0 - flat[..., :3]) * (255.0 - flat[..., 3:]) / 255
    assert np.abs(pixels - expected).max() <= 3


def test_ink_in_the_colours_of_television():
    # A JPEG of Adobe's kind 2 holds Y, Cb and Cr of the inks, and black turned round.
    y, cb, cr, black = 140, 100, 160, 200
    stored = np.full((16, 16, 4), [y, cb, cr, black], np.uint8)
    data = bytearray(encoded(Image.fromarray(255 - stored, "CMYK"), "JPEG", quality=100))
    data[data.index(b"Adobe") + 11] = 2
    pixels, _ = shown(bytes(data))
    ink = [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)]
    assert np.abs(pixels - (255 - np.array(ink)) * black / 255).max() <= 2


def test_a_picture_is_turned_as_its_exif_says():
    # The specification: row 0 and column 0 of the file are the visual top and left (1), top and right (2), and so on.
    upright = {
        1: COLORS,
        2: COLORS[:, ::-1],
        3: COLORS[::-1, ::-1],
        4: COLORS[::-1],
        5: COLORS.transpose(1, 0, 2),
        6: np.rot90(COLORS, -1),
        7: COLORS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLORS),
    }
    for orientation, expected in upright.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels, displayed = shown(encoded(Image.fromarray(COLORS), exif=exif))
        assert np.array_equal(pixels, expected), orientation
        assert displayed.notes == (() if orientation == 1 else ("turned as its EXIF says",))
        smooth = Image.fromarray(expected.astype(np.uint8))
        jpeg = encoded(Image.fromarray(COLORS), "JPEG", quality=100, subsampling=0, exif=exif)
        assert np.abs(shown(jpeg)[0] - np.asarray(smooth, int)).mean() < 3, orientation
    broken = encoded(Image.fromarray(COLORS), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert np.array_equal(shown(broken)[0], COLORS)


def icc(space: bytes, curves: dict[bytes, float], colorants: dict[bytes, tuple[float, float, float]]) -> bytes:
    """Write a colour profile of a matrix and curves that are powers (ICC.1:2001, sections 6.1 to 6.5)."""

    def fixed(*numbers: float) -> bytes:
        return struct.pack(f">{len(numbers)}i", *(round(n * 65536) for n in numbers))

    tags = {name: b"XYZ \0\0\0\0" + fixed(*xyz) for name, xyz in colorants.items()}
    tags |= {n: b"curv" + struct.pack(">IIHH", 0, 1, round(power * 256), 0) for n, power in curves.items()}
    tags[b"desc"] = b"desc" + struct.pack(">II", 0, 2) + b"x\0" + bytes(78)
    tags[b"cprt"] = b"text\0\0\0\0x\0\0\0"
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4xI", start + len(body), 0x02100000) + b"mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    header += bytes(28) + fixed(0.9642, 1.0, 0.8249)
    return header.ljust(128, b"\0") + table + body


WHITE = (0.9642, 1.0, 0.8249)
# Adobe RGB (1998) and sRGB, both adapted to D50: the columns are red, green and blue.
ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def srgb_levels(linear: np.ndarray) -> np.ndarray:
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def wide_profile() -> bytes:
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), 2.19921875)
    names = (b"wtpt", b"rXYZ", b"gXYZ", b"bXYZ")
    return icc(b"RGB ", curves, dict(zip(names, (WHITE, *map(tuple, ADOBE.T)), strict=True)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_profile_of_a_wide_gamut_is_followed(kind):
    flat = np.repeat(np.repeat(COLORS[:2, :2], 16, 0), 16, 1)
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    pixels, displayed = shown(encoded(Image.fromarray(flat), kind, icc_profile=wide_profile(), **options))
    expected = srgb_levels((flat / 255) ** 2.19921875 @ (np.linalg.inv(SRGB) @ ADOBE).T)
    assert np.abs(pixels - expected).max() <= (2 if kind == "PNG" else 5)
    assert np.abs(expected - flat).max() > 10
    assert displayed.notes == ("colors by its profile",) and not displayed.grey


def test_a_profile_of_greys_is_followed():
    linear = icc(b"GRAY", {b"kTRC": 1.0}, {b"wtpt": WHITE})
    pixels, displayed = shown(encoded(Image.fromarray(GREY), icc_profile=linear))
    assert np.abs(pixels - srgb_levels(GREY / 255)[..., None]).max() <= 2 and displayed.grey


def test_profiles_that_say_nothing_new_change_nothing():
    from PIL import ImageCms

    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile, notes in ((plain, ()), (b"junk" * 99, ("its color profile cannot be used",))):
        pixels, displayed = shown(encoded(Image.fromarray(COLORS), icc_profile=profile))
        assert np.array_equal(pixels, COLORS) and displayed.notes == notes


def test_a_gamma_is_followed_unless_it_is_a_screens():
    linear = chunk(b"gAMA", struct.pack(">I", 100_000))
    pixels, displayed = shown(raw_png(COLORS, 2, linear))
    assert np.abs(pixels - 255 * (COLORS / 255) ** (1 / 2.2)).max() <= 0.5
    assert displayed.notes == ("shown from gamma 1",)
    for chunks in ([chunk(b"gAMA", struct.pack(">I", 45_455))], [chunk(b"sRGB", b"\0"), linear]):
        pixels, displayed = shown(raw_png(COLORS, 2, *chunks))
        assert np.array_equal(pixels, COLORS) and displayed.notes == ()


def test_other_primaries_are_said():
    wide = struct.pack(">8I", 31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600)
    pixels, displayed = shown(raw_png(COLORS, 2, chunk(b"cHRM", wide)))
    assert np.array_equal(pixels, COLORS) and displayed.notes == ("its primaries taken as a screen's",)


def test_of_an_animation_the_first_frame_is_shown():
    frames = [Image.fromarray(COLORS), Image.fromarray(255 - COLORS)]
    pixels, displayed = shown(encoded(frames[0], save_all=True, append_images=frames[1:]))
    assert np.array_equal(pixels, COLORS) and displayed.notes == ("animated, first frame",)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "an empty file"),
        (encoded(Image.fromarray(COLORS), "TIFF"), "TIFF"),
        (encoded(Image.fromarray(COLORS), "GIF"), "GIF"),
        (encoded(Image.fromarray(COLORS), "WEBP"), "WebP"),
        (encoded(Image.fromarray(COLORS), "BMP"), "BMP"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
        (b"SIMPLE  =                    T", "FITS"),
        (b"\xef\xbb\xbf\n <!DOCTYPE HTML><title>404", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS"),
        (bytes(3000), "nothing but zeros"),
        (b"\x89PNG\n\x1a\n", "a damaged PNG"),
        (b"what is this", ""),
    ],
)
def test_other_files_are_named(data, kind):
    assert open_picture(data) is None
    assert kind_of(data) == kind
