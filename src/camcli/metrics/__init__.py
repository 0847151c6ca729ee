"""Statistics of channels and similarity of maps, without torch."""
