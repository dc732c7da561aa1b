"""A simulated competition: cells, stains and label patterns drawn from a seed."""
