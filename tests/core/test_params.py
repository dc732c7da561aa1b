"""params.yaml: every wrong key is named, all at once, and nothing is silently converted."""

import re
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
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
        (
            "sources: [sample]",
            "sources: [sample]\n  surces: [x]",
            r"data\.surces: unknown key; allowed .*: sources, draws$",
        ),
        ("draws: {} ", "draws: {kaggle: 2} ", r"data\.draws: kaggle: not among data\.sources"),
        ("draws: {} ", "draws: {sample: 0} ", r"data\.draws\.sample: .*greater than 0 \(it is 0\)"),
        ("draws: {} ", "draws: 2 ", r"data\.draws: .*\(it is 2\)"),
        ("sources: [sample]", "sources: sample", r"data\.sources: .*\(it is 'sample'\)"),
        ("sources: [sample]", "sources: [../elsewhere]", r"data\.sources\.0: .*pattern"),
        ("sources: [sample]", "sources: [sample, Sample]", r"data\.sources: 'sample' occurs twice; .* in case only"),
        ("sources: [sample]", "sources: [aux.v2]", r"data\.sources: 'aux\.v2' is no name of a folder on all systems"),
        ("sources: [sample]", "sources: [hpa.]", r"data\.sources: 'hpa\.' is no name of a folder on all systems"),
        ("  cbam-384:", "  resnet18.a1:", r"models.*resnet18\.a1.*pattern"),
        ("  cbam-384:", "  CON:", r"models: 'CON' is no name of a folder on all systems"),
        ("  cbam-384:", "  CBAM-320:", r"models: 'CBAM-320' occurs twice; names that differ in case only"),
        ("sources: [sample]", "sources: [Packed]", r"data\.sources: data/Packed is written by the pipeline: choose"),
        (
            "sources: [sample]",
            "sources: [contact-sheets]",
            r"data\.sources: data/contact-sheets is written by the",
        ),
        ("sources: [sample]", "sources: [folds.csv]", r"data\.sources: data/folds\.csv is written by the pipeline"),
        ("sources: [sample]", "sources: [2018]", r"data\.sources\.0: .*valid string \(it is 2018\)$"),
        ("sources: [sample]", "sources: ['kaggle ']", r"data\.sources\.0: .*pattern.* \(it is 'kaggle '\)$"),
        ("sources: [sample]", f"sources: [{'a' * 101}]", r"data\.sources\.0: .*at most 100 characters"),
        ("  cbam-384:", "  34:", r": models\.34: keys are text: write it in quotes, or choose another name$"),
        ("  cbam-384:", "  0x22:", r": models\.34: keys are text"),
        ("  cbam-384:", "  true:", r": models\.True: keys are text"),
        ("  cbam-384:", "  2018-10-01:", r": models\.datetime\.date\(2018, 10, 1\): keys are text"),
        ("  cbam-384:", "  cbam-320:", r"is not valid YAML: .*line \d+.*duplicate key .cbam-320"),
        ("  cbam-384:", "  CBAM für ER:", r"models\.CBAM für ER.*pattern"),
        ("  cbam-384:", f"  {'a' * 101}:", r"models\.a+.*at most 100 characters"),
        ("ids: [0, 1, 2]", "ids: ['0', '1']", r"folds\.ids\.0: .*valid integer \(it is '0'\); folds\.ids\.1: [^;]*$"),
        ("ids: [0, 1, 2]", "ids: [0, 1, 1]", r"folds\.ids: fold ids repeat"),
        ("ids: [0, 1, 2]", "ids: [0]", r"folds\.ids: .*at least 2"),
        ("keep: last", "keep: first", r"models\.[\w-]+\.keep: .*'last' or 'best_loss' \(it is 'first'\)"),
        ("head: label_queries", "head: kernel", r"models\.[\w-]+\.head: .*'pooled', 'label_queries' or 'hard_"),
        ("seed: 1", "seed: '1'", r"sample\.seed: .*valid integer"),
        ("seed: 1", "seed: 1.5", r"sample\.seed: .*valid integer"),
        ("    size: 384 ", "    size: 1024 ", r"models\.cbam-384\.size is 1024, larger than pack\.size 512"),
        ("proportions: {}", "proportions: {Golgi: 0.1}", r"ensemble\.proportions: no such label: Golgi"),
        ("pack:", "pak:", r"pack: this key is missing; pak: unknown key"),
        ("views: [identity", "views: [identety", r"tta\.views\.0: .*'identity'"),
        ("data:", "data: [", "not valid YAML"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, old, new)


@pytest.mark.parametrize("name", ["on", "null-model", "1e3-steps", "a" * 100, "2018-10", "'34'"])
def test_a_name_that_every_program_takes_for_text_is_allowed(tmp_path: Path, name: str) -> None:
    settings = load(tmp_path, "  cbam-384:", f"  {name}:")
    assert name.strip("'") in settings.models


CLASSICAL = "  forest:\n    kind: classical\n"
FROZEN = "  kernel:\n    kind: frozen\n"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            f"{CLASSICAL}    warmup: 0.1\n",
            r"^params\.yaml: models\.forest\.warmup: unknown key for kind classical; allowed here: kind, size, seed$",
        ),
        (f"{FROZEN}    epochs: 3\n", r": models\.kernel\.epochs: unknown key for kind frozen; allowed here: .*copies"),
        ("  net:\n    kind: network\n    copies: 3\n", r": models\.net\.copies: unknown key for kind network; allowed"),
        ("  forest: {size: 256, seed: 0}\n", r": models\.forest: kind is missing: network, frozen, classical$"),
        (
            "  forest: {kind: forest, size: 256, seed: 0}\n",
            r": models\.forest: kind must be one of network, frozen, classical \(it is 'forest'\)$",
        ),
        (f"{CLASSICAL}    size: 8\n", r": models\.forest\.size: .* 32 \(it is 8\)$"),
        (f"{FROZEN}    copies: 0\n", r": models\.kernel\.copies: .* 1 \(it is 0\)$"),
        (f"{FROZEN}    pretrained: false\n", r": models\.kernel\.pretrained.*False"),
        (
            f"{FROZEN}    augment: {{blur: 1}}\n",
            r": models\.kernel\.augment\.blur: unknown key for kind frozen; allowed here: crop, warp",
        ),
        (
            f"{FROZEN}    normalise: dataset\n    augment: {{drop_stains: 0.5}}\n",
            r": models\.kernel\.augment\.drop_stains is 0\.5, but normalise: dataset .*: use normalise: image, or",
        ),
        (f"{FROZEN}    augment: {{drop_stains: 2}}\n", r"augment\.drop_stains: .* 1 \(it is 2\)$"),
    ],
)
def test_a_wrong_key_of_a_model_is_named_with_the_kind(tmp_path: Path, model: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, "models:   ", f"models:\n{model} ")
    assert re.search(message, str(caught.value).replace(str(tmp_path / "params.yaml"), "params.yaml")), caught.value


PRETRAINED = "  net: {kind: network, pretrained: stage}\n"


@pytest.mark.parametrize(
    ("model", "names", "message"),
    [
        (
            PRETRAINED,
            "[]",
            r"models\.net\.pretrained is stage, but pretrain\.models does not name 'net': add it .*\./stage",
        ),
        (PRETRAINED, "[net, other]", r"pretrain\.models: there is no model 'other': choose from net, cbam-384"),
        (PRETRAINED, "[net, cbam-320]", r"names 'cbam-320', but models\.cbam-320\.pretrained is 'weights/cells\.sa"),
        (PRETRAINED, "[net, net]", r"pretrain\.models: models repeat"),
        (CLASSICAL, "[forest]", r"pretrain\.models: 'forest' is of kind classical, which has no network"),
    ],
)
def test_pre_trained_models_are_those_that_start_from_the_stage(
    tmp_path: Path, model: str, names: str, message: str
) -> None:
    path = tmp_path / "params.yaml"
    text = COMMITTED.replace("models:   ", f"models:\n{model} ", 1)
    path.write_text(text.replace("  models: []", f"  models: {names}"))
    with pytest.raises(InputError, match=message):
        params.load(path)


def test_a_model_may_start_from_its_encoder_and_an_encoder_from_a_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    text = COMMITTED.replace("models:   ", f"models:\n{PRETRAINED}{FROZEN}    pretrained: stage\n ", 1)
    path.write_text(text.replace("  models: []", "  models: [kernel, net]"))
    settings = params.load(path)
    assert settings.pretrain.models == ("kernel", "net")
    path.write_text(path.read_text().replace("start: weights/cells.safetensors", "start: stage"))
    with pytest.raises(InputError, match=r"pretrain\.start: an encoder cannot start from itself"):
        params.load(path)


def test_what_pre_training_reads_of_a_model_says_all_about_its_backbone(tmp_path: Path) -> None:
    settings = params.load()
    for model in settings.networks:
        (tmp_path / "encoder.json").write_text(params.encoder_section(model))
        found = params.load_encoder(tmp_path / "encoder.json", settings.pretrain)
        own = {"kind": "encoder", "seed": settings.pretrain.seed, "pretrained": settings.pretrain.start}
        expected = model.model_dump(include=set(params.BackboneModel.model_fields)) | own
        assert found.model_dump() == expected


def test_a_wrong_key_of_a_template_is_named_with_the_kind(tmp_path: Path) -> None:
    unknown = r"templates\.classical\.warmup: unknown key for kind classical; allowed here: kind, size, seed$"
    with pytest.raises(InputError, match=unknown):
        load(tmp_path, "    kind: classical", "    kind: classical\n    warmup: 0.1")
    with pytest.raises(InputError, match=r"templates\.frozen\.copies: this key is missing for kind frozen"):
        load(tmp_path, "    copies: 8 ", "    # ")


def test_models_of_every_kind_take_what_they_lack_from_their_template(tmp_path: Path) -> None:
    net = "  net: {kind: network, size: 64, augment: {crop: 0.25}, loss: {bce: 1.0}, focal: {gamma: 1.0}}\n"
    settings = load(tmp_path, "models:   ", f"models:\n{CLASSICAL}{FROZEN}{net} ")
    template = settings.templates.network
    assert settings.models["forest"] == settings.templates.classical
    assert settings.models["kernel"] == settings.templates.frozen
    assert settings.models["net"] == template.model_copy(
        update={
            "size": 64,
            "augment": template.augment.model_copy(update={"crop": 0.25}),
            "loss": {"bce": 1.0},  # not a section: the losses that are named are all
            "focal": template.focal.model_copy(update={"gamma": 1.0}),
        }
    )
    assert settings.networks == [model for model in settings.models.values() if isinstance(model, params.NetworkModel)]
    for model in settings.models.values():
        assert params.parse_model(model.model_dump_json()) == model


def test_a_file_survives_being_written_by_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dvc exp run -S` writes the file anew; a later change of a template must still reach the models."""
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED)
    monkeypatch.chdir(tmp_path)
    before = params.load()
    apply_overrides("params.yaml", ["ensemble.thresholds=global"])
    assert params.load() == before.model_copy(
        update={"ensemble": before.ensemble.model_copy(update={"thresholds": "global"})}
    )
    apply_overrides("params.yaml", ["templates.network.augment.noise=0.03", "templates.network.epochs=9"])
    for model in params.load().networks:
        assert (model.augment.noise, model.epochs) == (0.03, 9)
    assert "augment: {crop: 0.6}" in path.read_text()


@pytest.mark.parametrize("raw", [None, [], {"models": 1}, {"models": {}, "templates": {"network": 3}}])
def test_what_has_another_shape_is_left_to_the_checks(raw: object) -> None:
    assert params.complete_models(raw) == raw
    models = {"a": 1, "b": {"kind": ["x"]}, "c": {"kind": "network"}, "d": {"kind": "frozen"}, "e": {}}
    wrong = {"models": models, "templates": {"network": 3}}
    assert params.complete_models(wrong) == wrong


def test_without_a_network_there_is_none_to_choose(tmp_path: Path) -> None:
    models = COMMITTED[COMMITTED.index("models:   ") : COMMITTED.index("pretrain:")]
    with pytest.raises(InputError, match="of kind network"):
        _ = load(tmp_path, models, f"models:\n{CLASSICAL}\n").networks


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.replace("pack:\n  size: 512", "pack:\n  size: big").replace("  views:", "  view:"))
    with pytest.raises(InputError, match=r"pack\.size: .*tta\.view: unknown key"):
        params.load(path)


def test_exponents_without_a_point_are_numbers_as_for_dvc(tmp_path: Path) -> None:
    settings = load(tmp_path, "weight_decay: 0.05", "weight_decay: 5e-2")
    assert settings.networks[0].weight_decay == 0.05


def test_a_missing_file_says_where_to_stand(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="root folder"):
        params.load(tmp_path / "params.yaml")
