"""From raw images in zips or folders to one packed array: tables of samples, decoding, checks, resizing."""
