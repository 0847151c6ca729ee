"""What is tried on noise before the first picture."""
