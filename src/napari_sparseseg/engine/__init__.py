"""The second process: it learns and predicts, so that the window never waits."""
