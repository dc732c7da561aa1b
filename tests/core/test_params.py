"""params.yaml: what is wrong is said by key, all of it at once, and nothing is silently converted."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.core import params
from pipeline.core.errors import InputError

COMMITTED = Path("params.yaml").read_text()


def load(tmp_path: Path, old: str, new: str) -> params.Params:
    assert old in COMMITTED
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.replace(old, new, 1))
    return params.load(path)


def test_the_committed_file_is_valid_and_frozen() -> None:
    settings = params.load()
    assert len(settings.models) >= 2
    with pytest.raises(ValidationError, match="frozen"):
        settings.pack.size = 1  # type: ignore[misc]


@pytest.mark.parametrize("profile", sorted(Path("docs/profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_is_valid(profile: Path) -> None:
    params.load(profile)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sources: [sample]", "sources: [sample]\n  surces: [x]", r"data\.surces: unknown key; allowed here: sources$"),
        ("sources: [sample]", "sources: sample", r"data\.sources: .*\(it is 'sample'\)"),
        ("sources: [sample]", "sources: [../elsewhere]", r"data\.sources\.0: .*pattern"),
        ("ids: [0, 1, 2]", "ids: [0, 1, 1]", r"folds\.ids: fold ids repeat"),
        ("ids: [0, 1, 2]", "ids: [0]", r"folds\.ids: .*at least 2"),
        (
            "precision: auto",
            "precision: fp8",
            r"models\.[\w-]+\.precision: .*'auto', 'fp32' or 'bf16'.*\(it is 'fp8'\)",
        ),
        (
            "head: pooled",
            "head: kernel",
            r"models\.[\w-]+: head kernel trains no network: pretrained must",
        ),
        ("head: pooled", "head: forest", r"models\.[\w-]+: backbone measured and head forest go together"),
        ("backbone: resnet10t", "backbone: measured", r"models\.[\w-]+: backbone measured and head forest go together"),
        (
            "    <<: *base",
            "    <<: *base\n    backbone: measured\n    head: forest\n    pretrained: true",
            r"models\.[\w-]+: backbone measured has no weights: pretrained must be false",
        ),
        ("seed: 1", "seed: '1'", r"sample\.seed: .*valid integer"),
        ("seed: 1", "seed: 1.5", r"sample\.seed: .*valid integer"),
        ("size: 96 ", "size: 1024 ", r"models\.[\w-]+\.size is 1024, larger than pack\.size 512"),
        ("pack:", "pak:", r"pack: this key is missing; pak: unknown key"),
        ("views: [identity", "views: [identety", r"tta\.views\.0: .*'identity'"),
        ("data:", "data: [", "not valid YAML"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, old, new)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.replace("pack:\n  size: 512", "pack:\n  size: big").replace("  views:", "  view:"))
    with pytest.raises(InputError, match=r"pack\.size: .*tta\.view: unknown key"):
        params.load(path)


def test_exponents_without_a_point_are_numbers_as_for_dvc(tmp_path: Path) -> None:
    settings = load(tmp_path, "weight_decay: 0.05", "weight_decay: 5e-2")
    assert next(iter(settings.models.values())).weight_decay == 0.05


def test_a_missing_file_says_where_to_stand(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="root folder"):
        params.load(tmp_path / "params.yaml")
