PYTHON ?= python3
RUN = .venv/bin/python

.PHONY: install demo test lint clean

install:
	@$(PYTHON) tools/install.py

demo: install
	$(RUN) tools/train_net.py --config-file configs/quick/panoptic_R18_crbp_toy.yaml --resume

test: install
	$(RUN) -m pytest -n 2 tests

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean:
	rm -rf .venv output datasets/toy_panoptic build *.egg-info .pytest_cache .ruff_cache
