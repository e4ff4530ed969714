"""Sheets of mock galaxies at the left and real ones at the right, to be judged by eye."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from config_physics import MORPHOLOGIES
from galaxies.images.grids import plain_grid, save_picture

_INK, _PAPER = (226, 228, 236), (13, 14, 20)


def draw_sheets(
    images: tuple[np.ndarray, np.ndarray], classes: tuple[np.ndarray, np.ndarray], out: Path, seed: int
) -> list[Path]:
    """Write a sheet of 8 x 8 mock and 8 x 8 real galaxies, and a larger one of 6 x 6 each for every class.

    Parameters
    ----------
    images : tuple of ndarray, (N, 3, S, S) and (M, 3, S, S), uint8
        Mock and real.
    classes : tuple of ndarray, (N,) and (M,), int64
    out : Path
        Folder of `mock_and_real.png` and one picture named after each class.
    seed : int
        Decides which galaxies are drawn.

    Returns
    -------
    list of Path
    """
    rng = np.random.default_rng(seed)
    rows_of_sheet, sheets = [], {}
    for index, morphology in enumerate(MORPHOLOGIES):
        chosen = [
            sample[rng.permutation(np.flatnonzero(known == index))[:36]]
            for sample, known in zip(images, classes, strict=True)
        ]
        sheets[morphology.name] = _side_by_side([[_tiles(part, 6, 6, 3) for part in chosen]], [""])
        # The last 16, since the larger sheet begins with the first.
        rows_of_sheet.append([_tiles(part[-16:], 8, 2, 2) for part in chosen])
    overview = _side_by_side(rows_of_sheet, [morphology.label for morphology in MORPHOLOGIES])
    paths = []
    for name, sheet in {"mock_and_real": overview, **sheets}.items():
        paths.append(out / f"{name}.png")
        save_picture(sheet, paths[-1])
    return paths


def _tiles(images: np.ndarray, num_columns: int, num_rows: int, scale: int) -> Image.Image:
    """Tile images, each 64 x `scale` pixels wide or its own size; places that are left over stay black."""
    side = images.shape[-1]
    tiles = torch.zeros(num_columns * num_rows, 3, side, side, dtype=torch.uint8)
    tiles[: len(images)] = torch.from_numpy(images)
    scale = max(1, 64 * scale // side)
    # Pixels are repeated, not interpolated, as smoothing would hide the noise that is to be judged.
    return plain_grid(tiles.repeat_interleave(scale, 2).repeat_interleave(scale, 3), num_columns)


def _side_by_side(blocks: Sequence[Sequence[Image.Image]], labels: Sequence[str]) -> Image.Image:
    """Put pairs of grids below each other, mock at the left and real at the right, with a label to each pair."""
    margin, head, gap = (96 if any(labels) else 8), 34, 36
    width, height = blocks[0][0].size
    canvas = Image.new("RGB", (margin + 2 * width + gap + 8, head + len(blocks) * height + 8), _PAPER)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(16)
    for place, title in enumerate(("mock", "real")):
        draw.text((margin + place * (width + gap) + 4, 8), title, fill=_INK, font=font)
        for row, block in enumerate(blocks):
            canvas.paste(block[place], (margin + place * (width + gap), head + row * height))
    for row, label in enumerate(labels):
        draw.text((8, head + row * height + height // 2), label, fill=_INK, font=font, anchor="lm")
    return canvas
