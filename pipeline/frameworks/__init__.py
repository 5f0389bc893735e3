"""Frameworks: fit, export, compare, behind one protocol; `registry` knows them by name."""
