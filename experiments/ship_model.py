"""Makes a model that comes with wavemix_pl out of a run that was trained and tested.

    python experiments/ship_model.py RUN NAME

RUN is the run's directory, NAME data set and model, such as fashion-mnist/wavemix-lite-8-5. The folder of that name in
wavemix_pl/models/shipped_models gets the weights of the run's best epoch, and what it takes to use them: config,
images, results, model card.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from wavemix_pl.export_source import read_source
from wavemix_pl.models.shipped import FOLDER
from wavemix_pl.models.weights import load_checkpoint

SCORES = {"test_acc1": "top-1 %", "test_miou": "mIoU %"}


def main(run: Path, name: str) -> None:
    source = read_source(str(run / "checkpoints" / "best.ckpt"))
    test = json.loads((run / "test.json").read_text())
    config = yaml.safe_load((run / "config.yaml").read_text())
    data, epochs = config["data"]["class_path"].rpartition(".")[2], config["trainer"]["max_epochs"]
    epoch = load_checkpoint(run / "checkpoints" / "best.ckpt")["epoch"] + 1
    results = {SCORES[metric]: round(100 * value, 2) for metric, value in test["metrics"].items() if metric in SCORES}
    mean, std = (source.preprocessing[kind] for kind in ("mean", "std"))
    card = {
        "trained_on": f"{data}, epoch {epoch} of {epochs}, the best in validation, seed {config['seed_everything']}",
        "images": f"scaled to 0...1, mean {mean} taken out, divided by {std}",
        "results": ", ".join(f"{value} {metric}" for metric, value in results.items())
        + f" ({test['images']} test images)",
    }
    folder = FOLDER / name
    (folder / "README.md").unlink(missing_ok=True)  # an older one would stay
    source.model.save_pretrained(folder, model_card_kwargs=card)
    path = folder / "config.json"
    content = {**json.loads(path.read_text()), "preprocessing": source.preprocessing, "results": results}
    path.write_text(json.dumps(content, indent=2) + "\n")
    print(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
