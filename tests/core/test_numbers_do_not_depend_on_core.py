"""No result depends on how ``pipeline.core`` is written, which is why digests leave the package out.

Its modules cannot compute: they import nothing to compute with, and the two that know an array library make and name
objects with it. What a change there could still alter is written out here a second time: the labels and channels and
their order, the allowed values, that no parameter has a default or is converted, that progress bars hand on what they
are given, and that the hardware decides where a computation takes place and not what it gives.
"""

import ast
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from sklearn.preprocessing import MultiLabelBinarizer

from pipeline.core import entry, hardware, labels, model_params, params, paths, processors, progress
from pipeline.core.errors import raise_problems
from tests.fixtures.models import TINY

MODULES = sorted(path for path in Path("pipeline/core").glob("*.py"))
ALLOWED = {"joblib", "pydantic", "ruamel", "tqdm"}
ARRAYS = {
    "pipeline/core/labels.py": ("numpy", {"np.bool_", "np.zeros"}),
    "pipeline/core/hardware.py": (
        "torch",
        {
            "torch.backends.mps.is_available",
            "torch.cuda.is_available",
            "torch.device",
            "torch.cuda.get_device_capability",
            "torch.cuda.get_arch_list",
            "torch.backends.cudnn.benchmark",
        },
    ),
}
"""The modules that import an array library, and all that they may call of it."""

ARITHMETIC = {
    "entry.py": {"time.monotonic() - start", "128 + by"},
    "errors.py": {"len(places) - EXAMPLES"},
    "hardware.py": {"2 ** 30"},
    "labels.py": {"len(LABELS) - 1"},
    "params.py": {"set(proportions) - set(LABELS)"},
    "processors.py": {"usable() // processes"},
}
"""All arithmetic there is: times, exit codes, counts and names in messages, worker processes, bytes of memory."""

LABELS = [
    "Nucleoplasm",
    "Nuclear membrane",
    "Nucleoli",
    "Nucleoli fibrillar center",
    "Nuclear speckles",
    "Nuclear bodies",
    "Endoplasmic reticulum",
    "Golgi apparatus",
    "Peroxisomes",
    "Endosomes",
    "Lysosomes",
    "Intermediate filaments",
    "Actin filaments",
    "Focal adhesion sites",
    "Microtubules",
    "Microtubule ends",
    "Cytokinetic bridge",
    "Mitotic spindle",
    "Microtubule organizing center",
    "Centrosome",
    "Lipid droplets",
    "Plasma membrane",
    "Cell junctions",
    "Mitochondria",
    "Aggresome",
    "Cytosol",
    "Cytoplasmic bodies",
    "Rods & rings",
]
"""As on the competition's page "Data", 0 to 27."""

CHOICES: dict[Any, tuple[str, ...]] = {
    params.View: ("identity", "rot90", "rot180", "rot270", "flip", "flip_rot90", "flip_rot180", "flip_rot270"),
    params.Policy: ("fixed", "global", "per_label", "counts", "expected", "bagged"),
    params.Blending: ("probabilities", "logits", "ranks", "weights"),
    params.Calibrating: ("none", "temperature", "platt"),
    params.Reconstructing: ("denoise", "masked", "protein"),
    params.LossName: ("focal", "bce", "asymmetric", "soft_f1", "lovasz"),
    params.Precision: ("auto", "fp32", "bf16", "fp16"),
}
"""The stage ``ensemble`` compares the settings in this order."""

TARGETS = st.lists(st.lists(st.integers(0, 27), min_size=1, max_size=28, unique=True), max_size=20)
SECTIONS = ("augment", "focal", "asymmetric", "repeat")
"""The sections within a model's, of which a model need not repeat what it takes from its template."""
FILES = [Path("params.yaml"), *sorted(Path("docs/profiles").glob("*.yaml"))]


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> Iterator[str]:
    """The modules that the import statements of a file name."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            assert not node.level
            yield node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_core_imports_nothing_to_compute_with(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)}
    assert roots - sys.stdlib_module_names - ALLOWED - {"pipeline"} <= {ARRAYS.get(str(path), ("",))[0]}
    assert not roots & {"cmath", "decimal", "fractions", "math", "operator", "random", "secrets", "statistics", "uuid"}
    assert all(name.startswith("pipeline.core") for name in imported(path) if name.startswith("pipeline"))


@pytest.mark.parametrize("path", ARRAYS, ids=lambda path: Path(path).stem)
def test_array_libraries_make_and_name_objects_and_no_more(path: str) -> None:
    library, allowed = ARRAYS[path]
    module, calls = {"numpy": "np", "torch": "torch"}[library], set[str]()
    tree = parsed(Path(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(f"{module}."):
            calls.add(ast.unparse(node))
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert node.module.split(".")[0] != library, "import the library itself, so that its use is seen here"
    prefixes = {".".join(name.split(".")[:parts]) for name in allowed for parts in (1, 2, 3)}
    assert allowed <= calls <= allowed | prefixes
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AugAssign | ast.MatMult)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_there_is_no_arithmetic_but_that_of_times_messages_and_processes(path: Path) -> None:
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.BinOp):
            text, left = ast.unparse(node), ast.unparse(node.left)
            is_path = isinstance(node.op, ast.Div) and left.startswith(
                ("DATA", "PACKED", "CONTACT_SHEETS", "RESUME", "TABLES", "Path(", "path")
            )
            is_type = isinstance(node.op, ast.BitOr)
            is_string = isinstance(node.op, ast.Add) and any(quote in text for quote in "\"'")
            if not (is_path or is_type or is_string):
                found.add(text)
    assert found == ARITHMETIC.get(path.name, set())


def test_the_labels_and_channels_are_the_competitions_in_its_order() -> None:
    assert list(labels.LABELS) == LABELS
    assert labels.CHANNELS == ("green", "blue", "red", "yellow")


@given(TARGETS)
def test_targets_are_those_of_scikit_learn(targets: list[list[int]]) -> None:
    texts = [" ".join(map(str, ids)) for ids in targets]
    assert [list(labels.parse_target(text)) for text in texts] == targets
    assert [labels.format_target(ids) for ids in targets] == [" ".join(map(str, sorted(ids))) for ids in targets]
    matrix = labels.target_matrix(texts)
    assert matrix.dtype == np.bool_
    np.testing.assert_array_equal(matrix, MultiLabelBinarizer(classes=range(28)).fit_transform(targets))


def test_the_allowed_values_are_these_in_this_order() -> None:
    for choice, values in CHOICES.items():
        assert get_args(choice) == values


def sections(root: type[params.Section] = params.Section) -> Iterator[type[params.Section]]:
    for section in root.__subclasses__():
        yield section
        yield from sections(section)


def test_no_parameter_has_a_default_or_is_computed() -> None:
    found = list(sections())
    assert {params.Params, params.Machine, params.Augment, *params.KINDS.values()} <= set(found)
    for section in found:
        assert all(field.is_required() for field in section.model_fields.values()), section
        assert all(field.alias is None for field in section.model_fields.values()), section
        assert not section.model_computed_fields, section
        settings = section.model_config
        assert (settings.get("frozen"), settings.get("extra"), settings.get("strict")) == (True, "forbid", True)


def test_the_one_constant_of_a_model_is_that_its_features_are_computed_in_single_precision() -> None:
    constants = {name for section in sections() for name in section.__class_vars__}
    assert constants == {"precision"}
    assert model_params.ClassicalModel.precision == "fp32"


def same(loaded: object, written: object) -> bool:
    """Equal in value and type, but a whole number may be written for a fraction."""
    if isinstance(loaded, dict) and isinstance(written, dict):
        return loaded.keys() == written.keys() and all(same(loaded[key], written[key]) for key in loaded)
    if isinstance(loaded, list) and isinstance(written, list):
        return len(loaded) == len(written) and all(itertools.starmap(same, zip(loaded, written, strict=True)))
    return loaded == written and (type(loaded) is type(written) or (type(loaded), type(written)) == (float, int))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_value_arrives_as_it_is_written(path: Path) -> None:
    written, settings = YAML(typ="safe").load(path), params.load(path)
    for model in written["models"].values():
        template, own = written["templates"][model["kind"]], dict(model)
        model |= template | own
        model |= {part: template[part] | own[part] for part in SECTIONS if part in own}
    assert same(settings.model_dump(mode="json"), written)
    assert list(settings.models) == list(written["models"])  # blended in this order
    for model in settings.models.values():
        assert params.parse_model(model.model_dump_json()) == model


@given(st.permutations(get_args(params.LossName)))
def test_losses_keep_the_order_in_which_they_are_summed(names: list[str]) -> None:
    text = json.dumps(TINY.model_dump() | {"loss": dict.fromkeys(names, 0.1)})
    assert list(params.NetworkModel.model_validate_json(text).loss) == names


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=0, max_value=1))
def test_a_number_keeps_its_last_digit(value: float) -> None:
    share = params.Repeat.model_validate_json(json.dumps({"below": value, "most": 1})).below
    assert math.copysign(1, share) == math.copysign(1, value)
    assert share == value


@given(st.lists(st.integers()), st.booleans())
def test_progress_hands_on_every_item_in_order(items: list[int], shown: bool) -> None:
    assert list(progress.track(iter(items), "test", shown=shown)) == items
    with progress.count("test", total=len(items), shown=shown) as bar:
        bar.update(len(items))


def test_no_problem_is_no_error() -> None:
    raise_problems(Path("data/one"), [])  # and every problem is one: tests/core/test_errors.py


@pytest.mark.parametrize("gpu", [False, True])
def test_the_device_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, gpu: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(hardware, "_check_kernels", lambda: None)
    assert hardware.device() == torch.device("cuda" if gpu else "cpu")


@given(setting=st.integers(0, 100), cores=st.integers(1, 300), processes=st.integers(1, 16))
def test_workers_are_as_many_as_asked_for_or_the_share_of_the_cores(setting: int, cores: int, processes: int) -> None:
    """How many there are changes no byte: tests/training/test_loop.py and tests/simulation compare them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(processors, "cpu_count", lambda: cores)
        assert processors.workers(setting, processes) == setting
        assert processors.workers("auto", processes) == min(max(cores // processes, 1), 16)


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]*", fullmatch=True)
BY_JOB: list[Callable[[str, int], Path]] = [
    paths.model,
    paths.history,
    paths.log,
    paths.tensorboard,
    paths.predictions,
]
BY_NAME: list[Callable[[str], Path]] = [
    paths.source,
    paths.packed_images,
    paths.packed_index,
    paths.partly_packed,
    paths.contact_sheet,
    paths.maps,
    paths.code,
    paths.autoencoder,
    paths.pretraining_history,
    paths.reconstructions,
    paths.reconstruction_sheet,
    paths.pretraining_states,
    paths.model_params,
    paths.encoder_params,
]


@given(names=st.sets(NAMES, min_size=2, max_size=4), folds=st.sets(st.integers(0, 30), min_size=2, max_size=3))
def test_no_two_artifacts_share_a_place(names: set[str], folds: set[int]) -> None:
    found = [place(name, fold) for place in BY_JOB for name in names for fold in folds]
    found += [place(name) for place in BY_NAME[1:] for name in names]
    found += [value for value in vars(paths).values() if isinstance(value, Path)]
    found.remove(paths.RESUME)  # holds states that are told apart by their fingerprint
    assert len(set(found)) == len(found)


@given(content=st.binary(max_size=100))
def test_an_artifact_is_what_was_written(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("replaced") / "folder" / "artifact"
    for data in (b"old", content):
        with paths.replacing(path) as temporary:
            temporary.write_bytes(data)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_stage_gets_the_job_that_its_flags_name(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, done = params.load(), list[str]()
    for model, fold in itertools.product(settings.models, settings.folds.ids):
        monkeypatch.setattr(sys, "argv", ["stage", "--model", model, "--fold", str(fold)])
        assert entry.model_and_fold(settings) == (model, fold)
    for model in settings.models:
        monkeypatch.setattr(sys, "argv", ["stage", "--model", model])
        assert entry.model_name(settings) == model
    for source in settings.data.sources:
        monkeypatch.setattr(sys, "argv", ["stage", "--source", source])
        assert entry.source_name(settings) == source
    entry.run_main(lambda: done.append("once"))
    assert done == ["once"]
