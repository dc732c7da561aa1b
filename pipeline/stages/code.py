"""Write the digest of each stage's code, so that only a change that can affect a result reruns a stage.

Reads the modules of pipeline/; writes code-digests/<stage>.txt, a line per module that the stage imports. See
``pipeline/core/code_digest.py`` for what a digest leaves out.
"""

from pathlib import Path

from pipeline.core import code_digest, paths
from pipeline.core.entry import run_main
from pipeline.core.paths import replacing


def main() -> None:
    """Write the digests of all other stages."""
    for file in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        if file.stem != "code" and file.stem.isidentifier():  # a copy that a sync program makes is no module
            with replacing(paths.code(file.stem)) as temporary:
                temporary.write_text(code_digest.of_module(f"pipeline.stages.{file.stem}"), encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
