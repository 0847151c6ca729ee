"""Runs of ``camcli explain``."""
