"""One module per DVC stage: each reads files, calls the lower packages, and writes files."""
