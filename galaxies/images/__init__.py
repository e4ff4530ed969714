"""Pixels, whatever is on them: resampling, grids of pictures, reading pictures."""
