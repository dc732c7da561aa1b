"""Parameters, paths, labels, errors and progress bars for all other packages. No result depends on this code."""
