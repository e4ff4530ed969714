"""Prepared datasets: how they are written, read in batches, joined; where their galaxies come from."""
