PYTHON ?= python3
RUN = .venv/bin/python

.PHONY: install demo pathfinder study test test-matrix docs-check lint clean

install:
	@$(PYTHON) tools/install.py

demo: install
	$(RUN) tools/train_net.py --config-file configs/quick/panoptic_R18_crbp_toy.yaml --resume

pathfinder: install
	$(RUN) tools/generate_pathfinder.py --spec PF6s
	$(RUN) tools/train_net.py --config-file configs/pathfinder/PF6s_hgru_crbp.yaml --resume

# One run a core: two threads of one run would wait for those of the other.
study: install
	OMP_NUM_THREADS=1 $(RUN) -m tools.pathfinder_study --processes 2

# One thread a worker: two workers with two each would wait for one another. Tests of a file share what it sets up.
test: install
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(RUN) -m pytest -n 2 --dist loadfile tests

# The tests under other threads, other kernels of the processor and beside other work; half an hour.
test-matrix: install
	$(RUN) -m tools.test_matrix

# The commands of the pages, with settings of seconds.
docs-check: install
	$(RUN) -m tools.docs_check

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

clean:
	rm -rf .venv output datasets/toy_panoptic datasets/pathfinder/PF*s build *.egg-info .pytest_cache .ruff_cache .mypy_cache
