"""Raw images to one packed array: zips and folders, tables of samples, decoding, checks."""
