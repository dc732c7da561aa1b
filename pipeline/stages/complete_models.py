"""Write each model's whole section of params.yaml: its own keys, and those of its kind's template.

Reads ``templates`` and ``models``; writes model-params/<model>.json, and model-params/<model>.encoder.json with what
``pretrain`` reads of it. ``train`` depends on the file of its model, so that a change of a template reruns the models
that take the changed value from it, and no others.
"""

from pipeline.core import params, paths
from pipeline.core.entry import run_main
from pipeline.core.paths import replacing


def main() -> None:
    """Write the section of every model."""
    for name, model in params.load().models.items():
        with replacing(paths.model_params(name)) as temporary:
            temporary.write_text(model.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if isinstance(model, params.BackboneModel):
            with replacing(paths.encoder_params(name)) as temporary:
                temporary.write_text(params.encoder_section(model) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
