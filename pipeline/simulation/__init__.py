"""A simulated competition: cells, stains and protein patterns drawn from a seed."""
