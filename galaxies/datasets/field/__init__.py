"""From large frames of the sky, one a band, to galaxies: sky, detection, stars, cutouts."""
