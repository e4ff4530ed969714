"""Pictures of a run: labelled grids of galaxies and curves of its losses, drawn with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from galaxies.common.durable_files import output_file

_INK, _FAINT, _PAPER = (226, 228, 236), (120, 126, 142), (13, 14, 20)
_COLORS = ((102, 194, 255), (255, 170, 90), (140, 220, 130), (240, 120, 150), (200, 160, 255), (240, 220, 110))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
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


def plot_curves(panels: Sequence[tuple[str, dict[str, tuple[list[float], list[float]]]]], title: str) -> Image.Image:
    """Draw line charts below each other.

    Parameters
    ----------
    panels : sequence of (heading, {name: (x, y)})
        Panels without a finite point are left out.
    title : str
    """
    panels = [
        (heading, curves)
        for heading, curves in panels
        if any(math.isfinite(y) for _, values in curves.values() for y in values)
    ]
    width, height, left, top = 960, 250, 70, 46
    canvas = Image.new("RGB", (width, top + height * len(panels)), _PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((16, 12), title, font=_font(17), fill=_INK)
    for index, (heading, curves) in enumerate(panels):
        _draw_panel(
            draw, (left, top + index * height + 28, width - 30, top + (index + 1) * height - 30), heading, curves
        )
    return canvas


def _draw_panel(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], heading: str, curves: dict[str, tuple[list, list]]
) -> None:
    """Draw one chart with its axes, ticks, legend and lines into a box (left, top, right, bottom)."""
    left, top, right, bottom = box
    points = {name: [(x, y) for x, y in zip(*c, strict=True) if math.isfinite(y)] for name, c in curves.items()}
    everything = [point for curve in points.values() for point in curve]
    if not everything:
        return
    # A few wild first steps must not flatten the rest: the top 1 % may leave the panel.
    ys = sorted(y for _, y in everything)
    y_low, y_high = min(0.0, ys[0]), ys[min(len(ys) - 1, int(0.99 * len(ys)))]
    y_high = y_high if y_high > y_low else y_low + 1.0
    x_low, x_high = min(x for x, _ in everything), max(x for x, _ in everything)
    x_high = x_high if x_high > x_low else x_low + 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        fraction = min(max((y - y_low) / (y_high - y_low), 0.0), 1.0)
        return left + (x - x_low) / (x_high - x_low) * (right - left), bottom - fraction * (bottom - top)

    draw.text((left, top - 22), heading, font=_font(14), fill=_INK)
    for tick in _ticks(y_low, y_high):
        y = place(x_low, tick)[1]
        draw.line((left, y, right, y), fill=(38, 40, 52))
        draw.text((left - 8, y), f"{tick:g}", _FAINT, _font(12), anchor="rm")
    for tick in _ticks(x_low, x_high):
        draw.text((place(tick, y_low)[0], bottom + 6), f"{tick:g}", _FAINT, _font(12), anchor="ma")
    legend_right = right
    for (name, curve), color in reversed(list(zip(points.items(), _COLORS * 3, strict=False))):
        if len(curve) > 1:
            draw.line([place(*point) for point in curve], fill=color, width=2)
        elif curve:
            x, y = place(*curve[0])
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=color)
        legend_right -= draw.textlength(name, font=_font(13)) + 18
        draw.text((legend_right, top - 21), name, font=_font(13), fill=color)


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers between low and high."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(step * m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 6)
    return [round(k * step, 12) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all.

    Raises
    ------
    UserError
        If it cannot be written; what `path` was before stays.
    """
    with output_file(path) as file:
        picture.save(file, format="PNG")
