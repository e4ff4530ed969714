"""What `evaluate.py report` writes: figures, plots, the page, the card of a release."""
