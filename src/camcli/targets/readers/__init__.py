"""From what a model returns to the scores that are explained."""
