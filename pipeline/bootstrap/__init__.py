"""Joins ports and adapters. Only this layer knows all of them; the command line calls one function of it."""
