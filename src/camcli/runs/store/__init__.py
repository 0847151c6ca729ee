"""Object stores as output folders: what is written, listed and locked there."""
