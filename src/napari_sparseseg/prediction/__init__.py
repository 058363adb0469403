"""From a model and an image to labels for every pixel."""
