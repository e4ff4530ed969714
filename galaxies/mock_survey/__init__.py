"""Galaxies with known truth: drawn, lit, observed, voted on, written. It shares no code with `measure`."""
