"""What every other package stands on: parameters, paths, labels, errors, progress. No result depends on this code."""
