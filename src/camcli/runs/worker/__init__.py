"""Resolved jobs, and the images that stream through them."""
