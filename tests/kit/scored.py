"""A pooled network, and images for it."""

from networks import Pooled, pictures

# Pooling and a linear head: Grad-CAM's channel weights are the gradient by the scores times the head's weights.
MODEL = Pooled(3)
IMAGES = pictures(2, 8)
