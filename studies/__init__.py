"""Long experiments whose numbers the documents quote."""
