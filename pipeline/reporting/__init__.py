"""Everything that is drawn: plots, contact sheets and the report."""
