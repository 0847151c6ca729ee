"""Readers of model outputs: from what a model returns to the scores that are explained."""
