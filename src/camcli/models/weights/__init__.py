"""Reading, downloading and loading of weights files."""
