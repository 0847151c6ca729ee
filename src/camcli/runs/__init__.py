"""Runs of a job over many images."""
