"""How fast the program is, beside what the device could do at most."""
