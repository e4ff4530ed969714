"""What is kept on disk of a training: checkpoints, releases, the folder of a run."""
