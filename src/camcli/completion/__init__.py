"""Completion of command lines. Not in ``cli``, which imports typer: that takes longer than a key may."""
