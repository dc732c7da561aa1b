"""One module per DVC stage: each reads files, calls the floors below, and writes files."""
