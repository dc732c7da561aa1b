"""From a zip of fluorescence images to ``submission.csv`` and a cross-validated macro-F1 that can be believed."""

__version__ = "0.1.0"
