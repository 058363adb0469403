"""How networks learn from sparse and dense labels."""
