"""Backbones, attention, heads, losses, checkpoints, and a classical model."""
