"""The machinery behind the scripts, in folders; docs/architecture.md walks through them."""
