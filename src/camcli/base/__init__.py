"""General helpers that depend neither on torch nor on images."""
