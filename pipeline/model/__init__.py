"""Networks, attention and losses."""
