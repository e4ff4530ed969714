"""Mock fields of the sky: galaxies and stars in numbers, as a survey sees them, with the truth beside."""
