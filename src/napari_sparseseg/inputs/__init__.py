"""What a network sees of an image: normalised intensities at a working resolution."""
