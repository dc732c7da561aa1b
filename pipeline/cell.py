"""The only flags there are: which cell of dvc.yaml's matrix a stage works on."""

import argparse

from pipeline.errors import InputError
from pipeline.params import Params


def model_and_fold(settings: Params) -> tuple[str, int]:
    """Read ``--model NAME --fold K`` from the command line.

    Raises:
        InputError: params.yaml has no such model or fold.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="a key of models in params.yaml")
    parser.add_argument("--fold", required=True, type=int, help="one of folds.ids in params.yaml")
    arguments = parser.parse_args()
    if arguments.model not in settings.models:
        raise InputError(f"--model {arguments.model}: params.yaml has {', '.join(settings.models)}")
    if arguments.fold not in settings.folds.ids:
        raise InputError(f"--fold {arguments.fold}: params.yaml has {', '.join(map(str, settings.folds.ids))}")
    return arguments.model, arguments.fold


def model(settings: Params) -> str:
    """Read ``--model NAME`` from the command line.

    Raises:
        InputError: params.yaml has no such model.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="a key of models in params.yaml")
    name: str = parser.parse_args().model
    if name not in settings.models:
        raise InputError(f"--model {name}: params.yaml has {', '.join(settings.models)}")
    return name


def source(settings: Params) -> str:
    """Read ``--source NAME`` from the command line.

    Raises:
        InputError: params.yaml has no such source.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", required=True, help="one of data.sources in params.yaml")
    name: str = parser.parse_args().source
    if name not in settings.data.sources:
        raise InputError(f"--source {name}: params.yaml has {', '.join(settings.data.sources)}")
    return name
