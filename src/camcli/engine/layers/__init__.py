"""The layers of a network: by path, by what they give, by where they look."""
