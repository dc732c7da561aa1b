"""Fetching data over the network, and handing in a submission. No stage needs it."""
