"""Layers of a network: their paths, the layout of their outputs, and the position of their cells in the input."""
