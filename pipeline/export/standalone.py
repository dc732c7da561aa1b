"""Predict with onnxruntime, numpy and Pillow alone: ``python predict.py FOLDER > predictions.csv``.

FOLDER has four square 8-bit grayscale PNGs per sample, all of one size: ID_green.png (the protein), ID_blue.png (the
nucleus), ID_red.png (microtubules), ID_yellow.png (endoplasmic reticulum).
"""

import csv
import json
import signal
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def read(folder: Path, id_: str, channels: list[str]) -> np.ndarray:
    """The images of a sample, (1, 4, H, H) uint8."""
    images = []
    for path in (folder / f"{id_}_{channel}.png" for channel in channels):
        try:
            images.append(Image.open(path))
            images[-1].load()
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's, for images that are damaged
            sys.exit(f"error: {path} cannot be read ({error}): add it, or save it again as a PNG")
    if any(image.mode != "L" or image.size != (images[0].width,) * 2 for image in images):
        sys.exit(f"error: {folder / id_}_*.png: not square 8-bit grayscale images of one size: convert or crop them")
    return np.stack([np.asarray(image) for image in images])[None]


if __name__ == "__main__":
    for name in {"SIGINT", "SIGPIPE"} & set(dir(signal)):  # Ctrl-C, and `| head`: end without a traceback
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    if len(sys.argv) != 2:
        sys.exit(str(__doc__))
    package, folder = Path(__file__).parent, Path(sys.argv[1])
    ids = sorted(path.name.removesuffix("_green.png") for path in folder.glob("[!.]*_green.png"))
    if not ids:
        sys.exit(f"error: {folder}: no files ID_green.png: name a folder with four PNGs per sample")
    rule = json.loads((package / "decisions.json").read_text(encoding="utf-8"))
    model = onnxruntime.InferenceSession(package / "model.onnx", providers=["CPUExecutionProvider"])
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["id", *rule["labels"], "labels"])
    for id_ in ids:
        (found,) = model.run(None, {"images": read(folder, id_, rule["channels"])})[0]  # probabilities (28,)
        decided = found >= np.array(rule["thresholds"]) if (found >= rule["thresholds"]).any() else found == found.max()
        names = [name for name, yes in zip(rule["labels"], decided, strict=True) if yes]
        table.writerow([id_, *(f"{probability:.6f}" for probability in found), "; ".join(names)])
