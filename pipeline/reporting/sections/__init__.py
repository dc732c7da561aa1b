"""The sections of the report. Each is a function of a finished run."""
