"""Numbers about maps and channels; no torch."""
