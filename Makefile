# Needs make and Python 3.11 or newer with venv; runs as root or not. No package index is named here: pip's own
# configuration decides. Another Python in another place: make test PYTHON=python3.13 VENV=.venv-3.13

.POSIX:
.SUFFIXES:

# The first of these that is new enough is used.
PYTHON = python3 python3.13 python3.12 python3.11 python3.14
VENV = .venv
VENV_MIN = .venv-min
VENV_LOCK = .venv-lock
VENV_BENCH = .venv-bench
# Tests at once; each worker has a server of its own, and a process that its commands are forked from.
WORKERS = 2
PYTEST_ARGS =
BENCH_ARGS =
# DBOS needs a newer SQLAlchemy (2.0.43) than the lowest that the rest works with, so it is not among the lowest versions.
WITHOUT_DBOS = '--ignore-glob=tests/distributed/*'
# all, or bounded: a part of each harness, as CI runs it.
FAULTS = all

help:
	@echo 'make install      $(VENV) with the pinned dependencies and this project'
	@echo 'make demo         the main job on a throw-away PostgreSQL server'
	@echo 'make test         all tests but acceptance; PYTEST_ARGS="-k name" for some of them'
	@echo 'make test-min     the same on the lowest supported versions of the dependencies'
	@echo 'make lint         ruff, mypy, import-linter'
	@echo 'make check        lint and test'
	@echo "make acceptance   other people's Alembic histories on many tenants; downloads them"
	@echo 'make faults       kill, cut, fill up, restart: what the product promises then; slow; FAULTS=bounded for a part'
	@echo 'make bench        measure beside others, and write docs/performance.md (an hour or two)'
	@echo 'make bench-quick  the same in about two minutes, for its exit code; writes nothing into docs/'
	@echo 'make lock         requirements/*.txt anew (see CONTRIBUTING.md)'
	@echo 'make clean        remove what the others made'

install: $(VENV)/installed

# Pythons are run to find out, because pyenv has names for versions that are not active.
find_python = \
	python=; \
	for candidate in $(PYTHON); do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			python=$$candidate; break; \
		fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'make: no Python 3.11 or newer among: $(PYTHON). Name yours: make PYTHON=/path/to/python' >&2; exit 1; \
	fi

# Debian keeps venv's own pip in python3-venv; where that is missing, the system's pip can fill the environment.
make_venv = \
	$(find_python); \
	rm -rf "$$venv"; \
	echo "$$venv: $$("$$python" --version)"; \
	if "$$python" -c 'import ensurepip' 2>/dev/null; then \
		"$$python" -m venv "$$venv"; pip="$$venv/bin/python -m pip"; \
	elif "$$python" -m pip --version >/dev/null 2>&1; then \
		"$$python" -m venv --without-pip "$$venv"; pip="$$python -m pip --python $$venv/bin/python"; \
	else \
		echo 'make: this Python can make no environments: apt-get install python3-venv' >&2; exit 1; \
	fi

# The build backend is among the locked packages: an isolated build would fetch it unlocked.
install_venv = \
	set -eu; $(make_venv); \
	$$pip install --quiet --disable-pip-version-check --require-hashes -r "$$lock"; \
	$$venv/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .; \
	$$venv/bin/python -m pip check

$(VENV)/installed: pyproject.toml requirements/dev.txt
	@venv=$(VENV); lock=requirements/dev.txt; $(install_venv)
	@touch $@

$(VENV_MIN)/installed: pyproject.toml requirements/min.txt
	@venv=$(VENV_MIN); lock=requirements/min.txt; $(install_venv)
	@touch $@

demo: $(VENV)/installed
	$(VENV)/bin/orchestrator demo

test: $(VENV)/installed
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

test-min: $(VENV_MIN)/installed
	$(VENV_MIN)/bin/python -m pytest -n $(WORKERS) --dist worksteal $(WITHOUT_DBOS) $(PYTEST_ARGS)

acceptance: $(VENV)/installed
	$(VENV)/bin/python -m pytest tests/acceptance -o faulthandler_timeout=600 $(PYTEST_ARGS)

faults: $(VENV)/installed
	FAULTS=$(FAULTS) $(VENV)/bin/python -m pytest tests/faults -n $(WORKERS) --dist worksteal -o faulthandler_timeout=600 $(PYTEST_ARGS)

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

check: lint test

# Who the orchestrator is compared with; it is not installed there itself.
$(VENV_BENCH)/installed: requirements/bench.txt
	@set -eu; venv=$(VENV_BENCH); $(make_venv); \
	$$pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

# The page is written whatever was found: it says which goals were missed, and so does the exit code.
bench: $(VENV)/installed $(VENV_BENCH)/installed
	@status=0; \
	BENCH_VENV=$(VENV_BENCH) $(VENV)/bin/python -m benchmarks.run --out docs/performance/results.json $(BENCH_ARGS) || status=$$?; \
	$(VENV)/bin/python -m benchmarks.report docs/performance/results.json; \
	exit $$status

bench-quick: $(VENV)/installed $(VENV_BENCH)/installed
	BENCH_VENV=$(VENV_BENCH) $(VENV)/bin/python -m benchmarks.run --quick --out build/bench-quick.json $(BENCH_ARGS)

# On Python 3.11, the lowest supported: what only it needs is then in the files, and newer ones ignore it.
LOCK = $(VENV_LOCK)/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	--annotation-style line
LOWEST = $(VENV_LOCK)/lowest.txt

lock:
	@set -eu; venv=$(VENV_LOCK); $(make_venv); \
	"$$venv/bin/python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "run it on 3.11: make lock PYTHON=python3.11")'; \
	$$pip install --quiet pip pip-tools
	CUSTOM_COMPILE_COMMAND='make lock' $(LOCK) --extra embedded --extra distributed --output-file requirements/dev.txt pyproject.toml requirements/dev.in
	sed -n '/^dependencies = \[/,/^\]/s/^ *"\([A-Za-z.]*\).*>=\([0-9.]*\)".*/\1==\2/p' pyproject.toml > $(LOWEST)
	CUSTOM_COMPILE_COMMAND='make lock' $(LOCK) --extra embedded --constraint $(LOWEST) \
		--output-file requirements/min.txt pyproject.toml requirements/test.in
	CUSTOM_COMPILE_COMMAND='make lock' $(LOCK) --output-file requirements/bench.txt requirements/bench.in

clean:
	rm -rf $(VENV) $(VENV_MIN) $(VENV_LOCK) $(VENV_BENCH) build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.PHONY: help install demo test test-min acceptance faults lint check bench bench-quick lock clean
