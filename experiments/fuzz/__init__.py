"""Mutated input for everything that reads files."""
