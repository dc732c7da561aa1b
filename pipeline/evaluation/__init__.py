"""From probabilities to decisions and scores: blending, calibration, thresholds, metrics, confidence intervals."""
