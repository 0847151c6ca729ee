"""Model sources, one module each."""
