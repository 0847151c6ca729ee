"""A job resolved, and pictures streaming through it."""
