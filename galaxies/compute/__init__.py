"""Where arithmetic runs: device and precision, recorded steps, ranks, cores, the noise of a seed."""
