"""The window in napari. Nothing here loads torch: the engine does the work."""
