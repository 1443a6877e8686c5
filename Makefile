# Two commands from a fresh clone: `make reproduce` and `make test`. Both set up .venv first; running again continues.
#
#   make reproduce   render modelled faces, do the study demo, write reports/demo/index.html
#   make test        the tests; `make test-all` the long ones too
#   make lab         JupyterLab on the notebooks
#   make docs        a page for every public name, from the docstrings, in docs/api
#
# TORCH=cuda installs PyPI's build of torch, which on Linux carries CUDA (several GB); the default is the small CPU build.
# PYTHON names the interpreter to build .venv with, 3.11 or newer.
PYTHON ?= python3
TORCH ?= cpu
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready-$(TORCH)

# A kernel reads these when it starts: spinning threads of two runs fight over the same cores.
export OMP_WAIT_POLICY := passive
export GOMP_SPINCOUNT := 0
# Nothing here needs a model hub.
export HF_HUB_OFFLINE ?= 1

# Two processes of one thread each fill two cores; tests first, and the notebooks, which are short, even out the end. The lint is beside
# them: most of it is mypy, which has one thread.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder \
	--nbval-lax --nbval-current-env --nbval-cell-timeout 120 -p no:cacheprovider

.PHONY: reproduce test test-all pytest lab docs lint lock clean
.DELETE_ON_ERROR:

reproduce: $(READY)
	$(BIN)/aunce study demo

test: WHICH = -m "not long"
test-all: WHICH = --mutations 2000
test test-all: $(READY)
	$(MAKE) --no-print-directory --jobs 2 lint pytest WHICH='$(WHICH)'

pytest: $(READY)
	$(PYTEST) $(WHICH) tests notebooks

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/normalise.py --check notebooks/*.ipynb

lab: $(READY)
	$(BIN)/jupyter lab notebooks

docs: $(READY)
	$(BIN)/python -c 'import pdoc' 2>/dev/null || $(BIN)/pip install --quiet -e '.[docs]'
	$(BIN)/python -m pdoc --docformat google --output-directory docs/api aunce aunce.data \
		$$(find aunce -name '[a-z]*.py' | sort | sed 's|/|.|g; s|\.py$$||')

lock:
	$(PYTHON) tools/lock.py

# environment.yml is the one source of pins: its pip section, without the lines for conda, is what pip installs here. torch comes
# first and alone, so that nothing else pulls another build of it.
$(READY): environment.yml pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with PYTHON=...")'
	$(PYTHON) -m venv --clear $(VENV)
	sed -n 's/^ *- \([A-Za-z][^ ]*==.*\)$$/\1/p' environment.yml > $(VENV)/pins.txt
ifeq ($(TORCH),cpu)
	$(BIN)/pip install --quiet --retries 1 --index-url https://download.pytorch.org/whl/cpu "$$(grep '^torch==' $(VENV)/pins.txt)" 2>/dev/null || \
	$(BIN)/pip install --quiet "$$(grep '^torch==' $(VENV)/pins.txt)"
endif
	$(BIN)/pip install --quiet -r $(VENV)/pins.txt
	$(BIN)/pip install --quiet --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) data docs/api reports/*/runs reports/*/.engine-*
