"""Files of weights: read, fetched, fitted to a model."""
