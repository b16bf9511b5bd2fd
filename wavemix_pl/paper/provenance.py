"""Where a number comes from: which code, on which machine, with which configuration."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from wavemix_pl import __version__
from wavemix_pl.machine import choose_device, describe

_NO_MATTER = ("seed_everything", "ckpt_path")  # of a run's configuration
_PLACES = (("trainer", "default_root_dir"), ("data", "init_args", "root"), ("model", "init_args", "backbone"))


def origin(experiments: Path) -> dict[str, str]:
    """`device`, `date`, `commit` and `versions` of a number that is measured now.

    Args:
        experiments: A folder of the repository.
    """
    return {
        "device": str(describe(choose_device("auto"))["device"]),
        "date": datetime.date.today().isoformat(),
        "commit": _commit(experiments),
        "versions": " ".join(
            [f"wavemix_pl {__version__}", f"python {platform.python_version()}"]
            + [f"{name} {version(name)}" for name in ("torch", "lightning")]
        ),
    }


def _commit(folder: Path) -> str:
    """Of the repository, with a "+" where files differ from it (results apart); empty outside of one."""
    commit = _git(folder, "rev-parse", "--short=12", "HEAD")
    changed = commit and _git(folder, "status", "--porcelain", "--untracked-files=no", ":/", ":!/experiments/results")
    return commit + "+" * bool(changed)


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def hash_of(content: Any) -> str:
    """Twelve digits that tell whether two configurations are the same but for seed and places.

    Args:
        content: Plain values, or the `config.yaml` of a run.
    """
    if isinstance(content, Path):
        content = yaml.safe_load(content.read_text())
        for name in _NO_MATTER:
            content.pop(name, None)
        for *parents, name in _PLACES:
            part = content
            for parent in parents:
                part = part.get(parent) or {}
            part.pop(name, None)
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]
