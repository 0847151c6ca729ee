"""``camcli.explain``: images in, explanations that can draw themselves out; nothing is written."""
