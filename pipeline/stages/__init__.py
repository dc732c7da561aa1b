"""One module per DVC stage: each reads files, calls the packages below, and writes files."""
