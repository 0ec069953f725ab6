PYTHON ?= python3
RUN = .venv/bin/python

.PHONY: install demo pathfinder study pages test test-matrix docs-check lint clean

install:
	@$(PYTHON) tools/install.py

demo: install
	$(RUN) tools/train_net.py --config-file configs/quick/panoptic_R18_crbp_toy.yaml --resume

pathfinder: install
	$(RUN) tools/generate_pathfinder.py --spec PF6s
	$(RUN) tools/train_net.py --config-file configs/pathfinder/PF6s_hgru_crbp.yaml --resume

# One process for each core, one thread for each process.
study: install
	OMP_NUM_THREADS=1 $(RUN) -m tools.pathfinder_study --processes 2

# The pages and tables that are written from docstrings, records and committed checkpoints.
pages: install
	$(RUN) -m tools.api_page
	$(RUN) -m tools.model_zoo_page
	$(RUN) -m tools.pathfinder_study.report
	$(RUN) -m tools.benchmarks.rules
	$(RUN) -m tools.steps_picture

# One thread for each of two workers; a file's tests share its fixtures.
test: install
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(RUN) -m pytest -n 2 --dist loadfile tests

# The tests with other thread counts, older processor instructions and on a busy machine; half an hour.
test-matrix: install
	$(RUN) -m tools.test_matrix

# The commands of the pages, with settings that take seconds.
docs-check: install
	$(RUN) -m tools.docs_check

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

clean:
	rm -rf .venv output datasets/toy_panoptic datasets/pathfinder/PF*s build *.egg-info .pytest_cache .ruff_cache .mypy_cache
