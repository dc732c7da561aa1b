"""The kinds of picture: each draws plain arrays on axes and knows nothing of where they come from."""
