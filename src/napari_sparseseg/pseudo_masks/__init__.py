"""How boxes become pseudo-masks: label maps to learn from and to edit."""
