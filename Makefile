PYTHON ?= python3
WORKERS ?= 2
# pip reads these: the second is for pip >= 25.3, where the first no longer reaches the build
INSTALL = PIP_CONSTRAINT=$(1) PIP_BUILD_CONSTRAINT=$(1) $(@D)/bin/pip install -e ".[dev]"
# the workers are the parallelism: more threads in each would only fight for the cores
PYTEST = OMP_NUM_THREADS=1 $(1)/bin/python -m pytest -n $(WORKERS)

.NOTPARALLEL:
.PHONY: demo test test-oldest gpu-simulated slow lint format examples docs check clean

demo: .venv/stamp
	.venv/bin/python examples/digits_demo.py

test: .venv/stamp
	$(call PYTEST,.venv)

test-oldest: .venv-oldest/stamp
	$(call PYTEST,.venv-oldest)

slow: .venv/stamp
	$(call PYTEST,.venv) -m slow

lint: .venv/stamp
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

format: .venv/stamp
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

examples: .venv/stamp
	set -e; for file in examples/*.py; do echo "== $$file"; MPLBACKEND=Agg .venv/bin/python $$file; done

# -n: a reference to nothing is a warning, and -W: a warning is a failure
docs: .venv/stamp
	.venv/bin/python -m sphinx -n -W --keep-going -b html -d docs/_build/doctrees docs docs/_build/html
	.venv/bin/python docs/check_links.py docs/_build/html

gpu-simulated: .venv/stamp
	.venv/bin/python tests/simulated_device/run.py

check: test gpu-simulated lint examples docs

clean:
	rm -rf .venv .venv-oldest build *.egg-info .pytest_cache .ruff_cache .hypothesis
	rm -rf docs/_build docs/auto_examples docs/api/examples docs/api/generated

.venv/stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	$(call INSTALL,constraints.txt)
	touch $@

.venv-oldest/stamp: pyproject.toml constraints.txt constraints-oldest.txt
	$(PYTHON) -m venv $(@D)
	awk -F== '!seen[$$1]++' constraints-oldest.txt constraints.txt > $(@D)/constraints.txt
	$(call INSTALL,$(@D)/constraints.txt)
	touch $@
