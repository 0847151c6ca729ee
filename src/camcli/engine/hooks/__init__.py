"""Hooks and function modes that observe or change a forward pass, and restore the network afterwards."""
