"""Layers and parts that the models at the top are built of."""
