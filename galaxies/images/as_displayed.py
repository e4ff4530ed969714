"""Decode JPEG and PNG pictures into the colours that a viewer shows, which need not be the numbers in the file.

Every picture that is measured or prepared passes here. A file can say of its numbers that some are hidden (alpha), that
they stand for ink (CMYK), for entries of a palette or for the colours of another screen (a profile, a gamma), and that
the picture is to be turned (EXIF).
"""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile

from galaxies.images.opening import DEEP_MODES, GREY_MODES

_SCREEN_GAMMA = 1 / 2.2  # of files whose numbers are meant for a screen; PNG writes it as 0.45455
_SAME_GAMMA = 0.05  # relative: a smaller difference moves no level by more than six
_SCREEN_PRIMARIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # sRGB's: x and y of white, red, green, blue
_SAME_PRIMARIES = 0.02
_SAME_COLOR = 3  # levels: a profile that moves no colour further is one of sRGB's many versions
_MODES_OF_PROFILES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_NOT_OPTIMIZED = 0x100  # lcms' short cut for greys is wrong by ten levels in the dark
_BUILDING = threading.Lock()
_RAW_EXIF = "Raw profile type exif"  # where PNG files of before 2017 keep it
_TELLING = frozenset({"icc_profile", "exif", _RAW_EXIF, "gamma", "chromaticity", "transparency"})
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DeepPictureError(ValueError):
    """A grey picture of more than 8 bits a pixel: counts, whose black and white nobody knows."""


class Displayed(NamedTuple):
    """A picture as a viewer shows it.

    Attributes
    ----------
    image : Image
        In mode RGB.
    grey : bool
        Its file holds no colours; see also `has_no_color`.
    notes : tuple of str
        What was done to the numbers in the file, in words.
    """

    image: Image.Image
    grey: bool
    notes: tuple[str, ...] = ()


def as_displayed(image: ImageFile.ImageFile) -> Displayed:
    """Return an opened picture as a viewer shows it; of an animation, the first frame.

    Transparent parts are black. A viewer shows its own background there, often white, which would be a sky brighter
    than any galaxy; somebody who cut a galaxy out means that nothing is there, and the display of nothing is black.

    Parameters
    ----------
    image : ImageFile
        As `open_picture` returns it; it may have been asked for a reduced decode.

    Raises
    ------
    DeepPictureError
        For a grey picture of 16 bits a pixel.
    Exception
        Of many kinds (OSError, SyntaxError, ValueError, struct.error), if the file is damaged.
    """
    if image.mode in DEEP_MODES:
        raise DeepPictureError("it has 16 bits a pixel, whose levels are not known")
    notes = ["animated, first frame"] if getattr(image, "n_frames", 1) > 1 else []
    deep = any("16B" in str(tile[3]) for tile in image.tile)
    image.load()  # and with it what a PNG says after its pixels
    info: Mapping[Any, Any] = image.info
    if image.mode == "RGB" and not deep and not notes and _TELLING.isdisjoint(info):
        return Displayed(image, False)  # nearly all pictures of surveys
    if deep:
        notes.append("16 bits a color, as 8")
        if "transparency" in info:  # a colour of the file's own depth
            image.info["transparency"] = tuple(level >> 8 for level in info["transparency"])
    grey = image.mode in GREY_MODES
    turn = _TURNS.get(_orientation(image))
    colors, alpha = _split(image, grey)
    seen = colors if alpha is None else _on_black(colors, alpha)
    if colors.mode == "RGB" and not grey:
        planes = np.asarray(seen).transpose(2, 0, 1)
        grey = has_no_color(planes) and planes.min() < planes.max()  # one level all over is nothing, rather than grey
    colors, changed = _on_screen(colors, info)
    notes += changed
    if alpha is not None:
        colors = _on_black(colors, alpha)
        notes.append("transparent parts shown on black")
    if turn is not None:
        colors = colors.transpose(turn)
        notes.append("turned as its EXIF says")
    return Displayed(colors, grey, tuple(notes))


def has_no_color(planes: np.ndarray) -> bool:
    """Tell whether the three planes (3, H, W) of a picture are the same."""
    return np.array_equal(planes[0], planes[1]) and np.array_equal(planes[0], planes[2])


def _split(image: Image.Image, grey: bool) -> tuple[Image.Image, Image.Image | None]:
    """Return a picture as L, RGB or CMYK, and its alpha if that hides anything."""
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        return image.convert("RGB"), alpha if alpha.getextrema() != (255, 255) else None
    if image.mode in ("L", "RGB", "CMYK"):
        return image, None
    return image.convert("L" if grey else "RGB"), None


def _on_black(colors: Image.Image, alpha: Image.Image) -> Image.Image:
    return Image.composite(colors, Image.new(colors.mode, colors.size), alpha)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 is upright."""
    if image.info.keys().isdisjoint({"exif", _RAW_EXIF}):
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF, on which Pillow raises many kinds, is no reason to lose the picture
        return 1


def _on_screen(image: Image.Image, info: Mapping[Any, Any]) -> tuple[Image.Image, list[str]]:
    """Return a picture L, RGB or CMYK in the colours of a screen, RGB, and what was done to them."""
    notes = []
    if profile := info.get("icc_profile"):
        try:
            transform = _transform_to_screen(profile, image.mode)
            if transform is not None:
                return transform.apply(image), ["colors by its profile"]
        except Exception:  # a profile that is damaged, or of another kind of picture: viewers pass over it too
            notes.append("its color profile cannot be used")
    elif "srgb" not in info:  # that chunk says that the others need not be looked at
        gamma = info.get("gamma") or _SCREEN_GAMMA
        if abs(gamma / _SCREEN_GAMMA - 1) > _SAME_GAMMA:
            # PNG specification, section 13.13, on a screen with an exponent of 2.2.
            levels = 255 * (np.arange(256) / 255) ** (_SCREEN_GAMMA / gamma)
            image = image.point(np.tile(levels.round().astype(int), len(image.getbands())).tolist())
            notes.append(f"shown from gamma {gamma:.3g}")
        primaries = info.get("chromaticity", _SCREEN_PRIMARIES)
        if max(abs(a - b) for a, b in zip(primaries, _SCREEN_PRIMARIES, strict=True)) > _SAME_PRIMARIES:
            notes.append("its primaries taken as a screen's")
    return image.convert("RGB"), notes


@functools.lru_cache(maxsize=16)  # the pictures of a survey have one and the same
def _transform_to_screen(profile: bytes, mode: str) -> Any:
    """Return what turns pictures with a colour profile into sRGB; None if that would change next to nothing."""
    from PIL import ImageCms  # here, since it loads a library that few pictures need

    with _BUILDING:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _MODES_OF_PROFILES.get(source.profile.xcolor_space.strip()) != mode:
            raise ValueError("the profile of another kind of picture")
        plainly: Any = _NOT_OPTIMIZED if mode == "L" else 0  # no ImageCms.Flags, which Pillow 10.1 has not
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", flags=plainly)
    if mode == "CMYK":
        return transform
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(len(steps), -1, 3)
    trial = Image.fromarray(grid if mode == "RGB" else grid[..., 0])
    moved = np.asarray(transform.apply(trial), int) - np.asarray(trial.convert("RGB"), int)
    return transform if np.abs(moved).max() >= _SAME_COLOR else None
