"""The commands for people: ``python -m pipeline COMMAND``. DVC runs the stages in ``pipeline/stages/``."""

import argparse
import importlib
import os
import sys

from pipeline.core.entry import run_main

COMMANDS = {
    "summary": "print the scores of the finished run, with intervals and baselines",
    "compare": "is one run better than another? Paired comparison of two folders or git revisions",
    "predict": "predict the locations in new images with trained models",
    "app": "a local web page to try the models on images",
    "fetch": "fetch the competition from Kaggle, or images and labels of the Human Protein Atlas",
    "submit-to-kaggle": "check submission.csv, hand it in, and print its scores",
    "correct-test-leak": "write a second submission, with the labels of test images that a further source shows too",
    "embed": "a vector for each image or sample, to search and compare with",
    "export": "write a finished run as a package for other programs: ONNX, for the BioImage Model Zoo",
    "train-parallel": "train the stale models and folds side by side on Ray, one per GPU",
    "search": "search for a model's parameters; a fold that no trial saw judges the winner",
    "train-weights": "train weights on simulated fields, to start from (make weights)",
    "params": "explain and check the parameters in params.yaml",
}
"""A line of help for each command. Its module in ``pipeline/commands/`` is imported only when it is called."""


def main() -> None:
    """Run the command given on the command line."""
    listing = "\n".join(f"  {name:<18}{text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m pipeline",
        description="Protein localisation from fluorescence images. `dvc repro` runs the pipeline; these commands "
        "inspect its results and apply its models.",
        epilog=f"commands:\n{listing}\n\n`python -m pipeline COMMAND --help` explains a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help="one of the commands below")
    arguments = parser.parse_args(sys.argv[1:2])
    name = {"params": "show_params"}.get(arguments.command, arguments.command.replace("-", "_"))
    try:
        # The import too, since Ctrl-C can come during the seconds that torch takes.
        run_main(lambda: importlib.import_module(f"pipeline.commands.{name}").main(sys.argv[2:]))
        if sys.stdout is not None:  # as it is where the caller has closed it (>&-)
            sys.stdout.flush()
    except BrokenPipeError:  # whatever read the output, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's own flush at exit fails


if __name__ == "__main__":
    main()
