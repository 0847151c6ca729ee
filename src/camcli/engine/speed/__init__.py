"""A network made faster with the same results."""
