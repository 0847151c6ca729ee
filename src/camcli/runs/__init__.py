"""Runs of a job over many pictures."""
