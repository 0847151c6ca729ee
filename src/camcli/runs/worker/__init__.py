"""Resolved jobs, and the pictures that stream through them."""
