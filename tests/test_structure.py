"""The house keeps its plan: imports point one way, and each fact of the set-up stands in agreement."""

from __future__ import annotations

import ast
import configparser
import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "wavemix_pl"

# room -> rooms that it may import from
ALLOWED = {
    "errors": set(),
    "config": {"errors"},
    "models.wavelets": {"errors"},
    "models.mixers": {"models.wavelets"},
    # models.wavemix of the next six: for types only
    "models.layout": set(),
    "models.cells": {"models.layout", "models.mixers", "models.wavelets", "models.wavemix"},
    "models.fast": {"models.cells", "models.layout", "models.mixers", "models.wavelets", "models.wavemix"},
    "models.lean": {"errors", "models.fast", "models.wavelets", "models.wavemix"},
    "models.execution": {"models.fast", "models.layout", "models.lean", "models.merged_head", "models.merged_stem"}
    | {"models.wavemix"},
    "models.merged_stem": {"models.wavemix"},
    "models.merged_head": {"models.fast", "models.layout", "models.wavemix"},
    "models.packed": set(),
    "models.fused": {"models.cells", "models.merged_head", "models.merged_stem", "models.mixers", "models.packed"}
    | {"models.wavelets", "models.wavemix"},
    "models.wavemix": {"config", "errors", "models.execution", "models.fused", "models.hub", "models.mixers"}
    | {"models.wavelets", "models.weights"},
    "models.published": {"config", "errors"},
    "models.shipped": {"config"},
    "models.hub_file": {"errors"},
    "models.published_weights": {"config", "errors", "models.hub_file", "models.shipped"},
    "models.variants": {"config", "models.published_weights"},
    "models.hub": {"config", "errors"},
    "models.timm_models": {"config", "errors", "models.variants", "models.wavemix", "models.weights"},
    "models.weights": {"errors", "models.published", "models.published_weights", "models.wavemix"},
    "weights": {"models.published_weights", "models.shipped", "parser"},
    "models.convnets": {"errors"},
    "models.baselines": {"config", "errors", "models.convnets", "models.wavemix"},
    "losses": {"errors"},
    "pictures": {"errors"},
    "schedules": {"errors"},
    "scores": set(),
    "inference": {"errors"},
    "freezing": {"models.wavemix"},
    "image_module": {"errors", "freezing", "models.baselines", "models.wavemix", "models.weights", "schedules"},
    "modules": {"image_module", "inference", "scores"},
    "checkpoint_file": {"errors", "models.weights"},
    "model_arguments": {"checkpoint_file", "errors", "models.published_weights", "models.shipped", "models.weights"},
    "callbacks": {"callbacks", "checkpoint_file", "errors", "freezing", "losses", "machine", "measurement"}
    | {"metrics_file", "models.wavemix"}
    | {"pictures"},
    "data": {"errors", "data"},
    "parser": {"errors"},
    "metrics_file": set(),
    "annotation": {"data"},
    "predictions": {"annotation", "callbacks", "data", "errors"},
    "run_directory": {"checkpoint_file", "errors"},
    "training": {"allocator", "callbacks", "data", "errors", "metrics_file", "model_arguments", "modules", "parser"}
    | {"models.published_weights", "predictions", "refusal", "run_directory"},
    "refusal": {"errors", "parser"},
    "export": {"errors", "export_formats", "export_int8", "export_source", "parser", ""},
    "export_source": {"errors", "model_arguments", "models.baselines", "models.published_weights", "models.wavemix"}
    | {"models.shipped", "models.weights"},
    "export_formats": {"errors", "models.merged_stem"},
    "export_int8": {"errors", "data", "export_formats", "scores"},
    # nothing but the command line imports figures; they stand beside the report, and use its plots
    "figures": {"config", "data", "errors", "export_source", "models.baselines", "models.wavelets", "models.wavemix"}
    | {"paper.catalog", "paper.comparison", "paper.plots", "paper.results", "parser", "pictures"},
    "datasets": {"errors", "data", "parser", ""},
    "benchmark_data": {"errors", "data", "datasets", "parser"},
    "measurement": set(),
    "training_cost": {"measurement", "models.wavemix"},
    "allocator": set(),
    "machine": {"errors"},
    "workload": {"errors", "measurement", "models.baselines", "models.published", "models.wavemix", "models.weights"},
    "benchmark_results": set(),
    "benchmark": {"allocator", "benchmark_results", "errors", "machine", "measurement", "parser", "workload"},
    # of the paper's rooms only the smoke runs come near models and data, and run the command line in their own process
    "paper": set(),
    "paper.rows": {"config"},
    "paper.table_file": {"errors", "paper.rows"},
    "paper.catalog": {"errors", "paper.rows", "paper.table_file"},
    "paper.provenance": {"machine", ""},
    "paper.commands": {"paper.provenance", "paper.rows"},
    "paper.results": {"errors", "paper.catalog", "paper.rows"},
    "paper.comparison": {"config", "errors", "models.baselines", "paper.results", "paper.rows"},
    "paper.claims": {"paper.comparison", "paper.results", "paper.rows"},
    "paper.tables": {
        "errors",
        "paper.catalog",
        "paper.claims",
        "paper.comparison",
        "paper.results",
        "paper.rows",
        "parser",
    },
    "paper.plots": {"errors", "paper.comparison", "paper.rows", "pictures"},
    "paper.report": {"errors", "paper.catalog", "paper.claims", "paper.comparison", "paper.plots", "paper.results"}
    | {"paper.rows", "paper.tables", "parser"},
    "paper.reproduce": {
        "errors",
        "models.published_weights",
        "paper.catalog",
        "paper.commands",
        "paper.provenance",
        "paper.results",
    }
    | {"paper.rows", "paper.smoke", "parser", "run_directory"},
    "paper.smoke": {"allocator", "cli", "data", "models.published_weights", "models.wavemix", "paper.commands"}
    | {"paper.reproduce", "paper.results", "paper.rows"},
    "cli": {"errors", "benchmark", "benchmark_data", "datasets", "export", "figures", "training", "weights"}
    | {"paper.report", "paper.reproduce", "paper.tables", ""},
    "__main__": {"cli"},
    "": {"config", "models.timm_models", "models.wavemix", "models"},
    "models": set(),
}


def room(module: str) -> str:
    """The key of ALLOWED under which a module of the package stands."""
    return next(part for part in (module, module.partition(".")[0]) if part in ALLOWED)


def imports(path: Path) -> set[str]:
    """The package's modules that a file imports, without the package's name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inside = ROOT / (node.module or "").replace(".", "/") / alias.name
                is_module = inside.is_dir() or inside.with_suffix(".py").exists()
                names.add(f"{node.module}.{alias.name}" if is_module else node.module or "")
    return {name.removeprefix("wavemix_pl").removeprefix(".") for name in names if name.split(".")[0] == "wavemix_pl"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows(path: Path) -> None:
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")
    here = room(module)
    assert {room(name) for name in imports(path)} - {here} <= ALLOWED[here]


def requirements(text: str) -> dict[str, str]:
    """Name -> bounds, of a list of requirements with comments."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"\s*([A-Za-z][\w.-]*)(?:\[[\w,]+\])?\s*([<>=!~].*)?$", line.partition("#")[0].rstrip())
        if match:
            found[match[1].lower().replace("_", "-")] = (match[2] or "").strip()
    return found


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    return config


def test_environment_yml_says_what_setup_cfg_says() -> None:
    config = setup_cfg()
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    from_pip = next(entry["pip"] for entry in environment if isinstance(entry, dict))
    conda = requirements("\n".join(entry for entry in environment if isinstance(entry, str)))
    pip = requirements("\n".join(from_pip))
    renamed = {"pytorch": "torch"}  # conda's name: pip's
    both = {renamed.get(name, name): bounds for name, bounds in conda.items()} | pip
    assert both.pop("python") == config["options"]["python_requires"]
    assert both.pop("pip") == ""
    assert "-e ." in from_pip
    wanted = requirements(config["options"]["install_requires"]) | requirements(
        config["options.extras_require"]["plots"]
    )
    assert both == wanted


def test_each_bound_has_its_reason() -> None:
    """A line of dependencies comes after a comment."""
    lines = (ROOT / "setup.cfg").read_text().splitlines()
    start, end = lines.index("install_requires ="), lines.index("[options.packages.find]")
    block = [line.strip() for line in lines[start + 1 : end] if line.strip()]
    assert len(block) > 10
    for before, line in pairwise(block):
        assert line.startswith("#") or before.startswith("#"), line


def test_versions_agree() -> None:
    from wavemix_pl import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text()


def test_readme_commands_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"^make ([\w-]+)", readme, re.MULTILINE))
    assert named
    assert named <= targets
    for recipe in re.findall(r"experiments/recipes/[\w-]+\.yaml", readme):
        assert (ROOT / recipe).is_file()
