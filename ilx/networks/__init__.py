"""Flax linen modules: torsos, heads and the distributions that heads return."""
