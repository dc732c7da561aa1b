"""Fitting one model on one fold: loop, step, resume, several processes."""
