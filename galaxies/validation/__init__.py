"""How good a generator is, by instruments and networks that took no part in its training."""
