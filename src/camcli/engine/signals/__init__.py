"""Signals: the values that a method's parameters name, computed from the network on demand and once."""
