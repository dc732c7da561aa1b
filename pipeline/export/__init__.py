"""A finished run as a package for other programs: its decision path as ONNX, described for the BioImage Model Zoo."""
