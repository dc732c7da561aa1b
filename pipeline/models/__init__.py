"""Networks (backbone, attention, heads), losses, checkpoints, and a model of hand-crafted features."""
