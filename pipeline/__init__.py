"""Protein localisation: from a zip of fluorescence images to ``submission.csv`` and a cross-validated macro-F1."""

import os

__version__ = "0.1.0"

# OpenMP threads synchronise many times per training step, and by default they busy-wait. If another process needs the
# same core (a loader worker, a browser), this slows training by a factor of seven; passive waiting costs nothing.
# The variable must be set before torch is imported, and this module is imported before any module that imports torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Apple's GPUs lack some operations; these run on the CPU instead of ending the run. Also read when torch is imported.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
