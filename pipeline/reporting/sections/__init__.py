"""The sections of the report, each a function of a finished run."""
