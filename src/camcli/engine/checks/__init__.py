"""Checks that run on noise before the first image."""
