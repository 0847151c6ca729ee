"""A job over many pictures."""
