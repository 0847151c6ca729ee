"""From signals to maps."""
