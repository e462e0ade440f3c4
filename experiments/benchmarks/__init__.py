"""Speeds beside their limits, measured in one run: see README.md."""
