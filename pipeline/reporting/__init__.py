"""Everything that is drawn: plots, contact sheets, the report page."""
