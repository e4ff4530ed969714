"""The page and its HTTP interface: requests, their answers, drawing in batches, listening, security."""
