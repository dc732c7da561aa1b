"""One module per word of ``python -m pipeline``."""
