"""Grids of galaxies, labelled or plain, and writing them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from galaxies.common.durable_files import plain_errors, whole_file

_INK, _FAINT, _PAPER = (226, 228, 236), (120, 126, 142), (13, 14, 20)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def to_picture(image: Tensor) -> Image.Image:
    """Turn one image (3, S, S) uint8 into a Pillow picture."""
    return Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))


def labelled_grid(
    rows: Sequence[Tensor], labels: Sequence[str], captions: Sequence[Sequence[str]] | None = None, title: str = ""
) -> Image.Image:
    """Draw rows of images with a label at the left of each and, optionally, a caption under each image.

    Parameters
    ----------
    rows : sequence of Tensor, each (N, 3, S, S), uint8
    labels : sequence of str, one a row
        A line break starts a second, fainter line.
    captions : sequence of sequences of str, optional
        One a row, each empty or with one text an image.
    title : str
        Above the grid.
    """
    captions = captions or [()] * len(rows)
    side = rows[0].shape[-1]
    scale = max(1, 128 // side)
    cell, gap, margin, head = side * scale, 4, 170, 34 if title else 8
    heights = [cell + gap + (18 if row_captions else 0) for row_captions in captions]
    num_columns = max(len(row) for row in rows)
    canvas = Image.new("RGB", (margin + num_columns * (cell + gap) + gap, head + sum(heights) + gap), _PAPER)
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((gap + 6, 8), title, font=_font(15), fill=_INK)
    top = head
    for row, label, row_captions, height in zip(rows, labels, captions, heights, strict=True):
        for line, text in enumerate(label.split("\n")):
            middle = top + cell // 2 - 16 + 20 * line
            draw.text((10, middle), text, font=_font(14 if line == 0 else 12), fill=_INK if line == 0 else _FAINT)
        for column, image in enumerate(row):
            left = margin + column * (cell + gap)
            picture = to_picture(image)
            canvas.paste(picture.resize((cell, cell), Image.Resampling.LANCZOS), (left, top))
            if row_captions:
                draw.text((left + cell // 2, top + cell + 1), row_captions[column], _FAINT, _font(12), anchor="ma")
        top += height
    return canvas


def plain_grid(images: Tensor, num_columns: int | None = None) -> Image.Image:
    """Tile images (N, 3, S, S) uint8 into a nearly square grid with thin gaps."""
    count, _, side, _ = images.shape
    num_columns = num_columns or math.ceil(math.sqrt(count))
    num_rows = math.ceil(count / num_columns)
    canvas = Image.new("RGB", (num_columns * (side + 2) + 2, num_rows * (side + 2) + 2), _PAPER)
    for index in range(count):
        row, column = divmod(index, num_columns)
        canvas.paste(to_picture(images[index]), (2 + column * (side + 2), 2 + row * (side + 2)))
    return canvas


def save_picture(picture: Image.Image, path: Path, texts: Mapping[str, str] | None = None) -> None:
    """Write a PNG, whole or not at all; `texts` go into its text chunks by their keywords.

    Raises
    ------
    UserError
        If it cannot be written; what `path` was before stays.
    """
    with plain_errors(path), whole_file(path) as file:
        picture.save(file, format="PNG", pnginfo=text_chunks(texts or {}))


def text_chunks(texts: Mapping[str, str]) -> PngInfo:
    """Return texts as chunks of a PNG file, by their keywords."""
    chunks = PngInfo()
    for keyword, text in texts.items():
        chunks.add_text(keyword, text)
    return chunks
