"""``camcli explain``."""
