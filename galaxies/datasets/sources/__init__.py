"""One file for each kind of source that galaxies come from."""
