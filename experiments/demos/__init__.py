"""Experts of our own: trained online in EnvPool, then recorded as demonstrations."""
