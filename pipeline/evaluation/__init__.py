"""Probabilities to decisions and scores: blending, calibration, thresholds, metrics, intervals."""
