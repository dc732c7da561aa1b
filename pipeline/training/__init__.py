"""Fitting networks and predicting with them; the only place that knows devices and precision."""
