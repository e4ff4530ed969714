"""Which version of the program this is, as files that it writes say."""

from __future__ import annotations

VERSION = "0.10.0"  # that of pyproject.toml and CITATION.cff
SOFTWARE = f"galaxies {VERSION}"
SYNTHETIC = "SYNTHETIC: drawn by a neural network, not observed"
