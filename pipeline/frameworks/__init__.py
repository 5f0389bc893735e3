"""Deep-learning frameworks: fit, export, compare, behind one protocol."""
