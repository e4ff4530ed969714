"""What a telescope does to light: surveys by name, point-spread functions, pixels, noise, zero points."""
