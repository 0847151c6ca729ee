"""Adapters around a loaded model: wrapper, text tower, input size, head removal."""
