"""Maps from signals."""
