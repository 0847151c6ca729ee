"""What is in the sample images, and where."""

# Measured on the bundled model; the table is in sample_images/README.md's source.
FOUND = {
    "camera.png": ("tripod", 0.94),
    "cat-and-espresso.jpg": ("Egyptian cat", 0.33),
    "chelsea.png": ("tiger cat", 0.39),
    "cincinnati-bridge.jpg": ("suspension bridge", 0.61),
    "citrus-fruits.jpg": ("lemon", 0.72),
    "coffee.png": ("espresso", 0.95),
    "european-honey-bee.jpg": ("bee", 0.99),
}
# By eye: where the thing is, as fractions x0, y0, x1, y1.
BOXES = {
    "coffee.png": (0.29, 0.04, 0.68, 0.77),
    "camera.png": (0.42, 0.33, 0.88, 1.0),
    "european-honey-bee.jpg": (0.08, 0.22, 0.51, 0.78),
}
