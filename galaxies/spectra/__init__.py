"""Spectra of galaxies: templates of stars and dust, and what mixture of them has the magnitudes of a galaxy."""
