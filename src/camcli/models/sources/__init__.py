"""Where models come from: a file for each source."""
