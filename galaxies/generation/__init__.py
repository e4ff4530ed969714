"""From a checkpoint to galaxies: networks from a state, solvers, guidance, requests, catalogues, shards."""
