"""Speed optimisations of a network that keep its results."""
