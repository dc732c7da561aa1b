"""A local web page to try the models of a finished run; nothing that is uploaded is kept."""
