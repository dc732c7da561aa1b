"""The commit of the code in the working folder."""

import subprocess

NOT_UNDER_GIT = "not under git"


def code_revision() -> str:
    """The commit of the working folder, and whether the code or the parameters have changed since."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD").strip()
        changed = _git("status", "--porcelain", "--", "pipeline", "params.yaml", "dvc.yaml")
    except (OSError, subprocess.CalledProcessError):
        return NOT_UNDER_GIT
    return f"commit {commit}" + (" with changes" if changed else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout
