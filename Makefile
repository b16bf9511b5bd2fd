# make quickstart   sets up .venv, trains a small model on the images that come with the package, shows what came out
# make quickstart-segmentation   the same for segmentation
# make reproduce-fashion   trains Table 5's Fashion-MNIST row again, three seeds (hours), and records what came out
# make notebooks    sets up .venv for the notebooks, and says how to open them
# make test         the same set-up with what the tests need, then the tests
# make check        formatting, lint and types
# make slow-test    real trainings and other minutes-long tests
# make gpu-test     what only a GPU can show; all other tests run on the CPU
# make crash-test   of these, runs that are killed at random moments and must end as if they had never stopped
#
# REPRODUCE_FLAGS='--seeds 1 --trainer.precision=bf16-mixed' goes to `wavemix-pl reproduce`.
# PYTHON=python3.12 chooses the interpreter for .venv; VENV_FLAGS=--system-site-packages lets .venv use packages that are
# installed already, such as a CPU build of torch.

PYTHON ?= python3
VENV_FLAGS ?=
REPRODUCE_FLAGS ?= --data.download=true
BIN := .venv/bin
FASTER := OMP_NUM_THREADS=1# one thread for each of the two test processes

.PHONY: quickstart quickstart-segmentation reproduce-fashion notebooks test slow-test gpu-test crash-test check clean

quickstart: .venv/plots
	rm -rf runs/quickstart
	$(BIN)/wavemix-pl fit --config experiments/recipes/quickstart.yaml
	$(BIN)/wavemix-pl test --config experiments/recipes/quickstart.yaml --ckpt_path=runs/quickstart/checkpoints/best.ckpt

quickstart-segmentation: .venv/plots
	rm -rf runs/quickstart-segmentation
	$(BIN)/wavemix-pl fit --config experiments/recipes/quickstart-segmentation.yaml
	$(BIN)/wavemix-pl test --config experiments/recipes/quickstart-segmentation.yaml \
		--ckpt_path=runs/quickstart-segmentation/checkpoints/best.ckpt

reproduce-fashion: .venv/plots
	$(BIN)/wavemix-pl reproduce 5 --group "Fashion MNIST" --row WaveMix-Lite-8/5 --stage train --again $(REPRODUCE_FLAGS)
	$(BIN)/wavemix-pl report --readme README.md

notebooks: .venv/notebooks
	@echo "Open notebooks/ in VS Code with the interpreter $(BIN)/python, or in a browser:"
	@echo "  $(BIN)/pip install jupyterlab && $(BIN)/jupyter lab notebooks"

test: .venv/test
	$(FASTER) $(BIN)/pytest -n 2

slow-test: .venv/test
	$(BIN)/pytest -m slow

gpu-test: .venv/test
	$(BIN)/pytest -m gpu

crash-test: .venv/test
	$(FASTER) $(BIN)/pytest -m "slow or not slow" tests/test_resume.py

check: .venv/check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs build *.egg-info

# One file for each set of extras that is installed; made anew when the dependencies change. A torch that is there stays:
# without the constraint, pip would exchange a CPU build for whatever the newest torchvision asks for.
.venv/%: setup.cfg pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip freeze | grep '^torch==' > .venv/constraints.txt || true
	$(BIN)/python -m pip install --quiet --constraint .venv/constraints.txt --editable '.[$*]'
	touch $@

.venv/bin/python:
	$(PYTHON) -m venv $(VENV_FLAGS) .venv
