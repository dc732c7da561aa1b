"""One module for each part of the page: from a run to blocks, whose captions follow from the run's own figures."""
