"""Figures drawn from what the stages wrote."""
