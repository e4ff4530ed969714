"""Measurements on images of galaxies: sky, source, photometry, structure, spectrum."""
