PYTHON ?= python3
RUN = .venv/bin/python

.PHONY: install demo test lint clean

install:
	@$(PYTHON) tools/install.py

demo: install
	$(RUN) tools/demo.py

test: install
	$(RUN) -m pytest -n 2 tests

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean:
	rm -rf .venv output build *.egg-info .pytest_cache .ruff_cache
