"""Signals: what the parameters of methods name, got from the network when it is asked for, and once."""
