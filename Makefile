# One command does all the set-up: `make demo` or `make test` on a machine with only Python 3.10+ and make.
# uv is used when it is installed, else pip fetches it into .venv. Versions come from constraints.txt.

.DEFAULT_GOAL := help
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PROJECT := .[redis,sqlite,postgresql]
# What a test run needs: everything but the linters.
RUN_GROUPS := --group test --group example

# Of `make test-matrix`, one environment each; `make test-matrix MATRIX="1.4.54"` runs one of them.
MATRIX := 1.4.54 2.0.58 2.1.9
MATRIX_TESTS := tests
# Test processes side by side; each takes its tests in their order, and starts the servers that they share.
WORKERS := -n 2 --dist worksteal
# Of `make transparency`, one environment each: the versions that have a suite of this shape.
TRANSPARENCY := 2.0.58 2.1.9
# Of `make test-sync`.
SYNC_TESTS := tests/situations tests/exactness tests/issues tests/machine/test_machine.py
# Of `make test-drivers`: those that `make test` does not run the everyday situations on.
DRIVERS := postgresql+psycopg mariadb+asyncmy
SYNC_DRIVERS := postgresql+psycopg postgresql+psycopg2 mariadb+pymysql
# Of `make explore`: --most STATES of a story, --no-redis, words of a story's name.
EXPLORE :=
# Of `make soak`: --seconds N --seed S --clients N --local validated|pushed|none.
SOAK :=
# Of `make leaks`: --operations N --seconds N --seed S --local mem|validated|pushed|none --front async|sync --trace.
LEAKS :=
# Of `make bench`: --part NAME --rounds N --json FILE --plots DIR; of `make bench-gate`: --from FILE --write.
BENCH :=
# Of `make dashboards-test`: those that `make test` runs, too, and those that take a minute and a half.
DASHBOARDS_TESTS := test_*.py phases.py
# Handed to pytest by every target: make test PYTEST_ARGS="-k joins -x -n 0", of which -n 0 is: in one process.
PYTEST_ARGS :=

# The first Python that is new enough: $(PYTHON) if given, python3, then the newest python3.x on PATH.
find_python = python=; \
	for candidate in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python3.10; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then \
	    python=$$candidate; break; fi; done

# The uv to use: the installed one when it knows dependency groups, else the one in .venv.
find_uv = if uv pip install --help 2>/dev/null | grep -q -e --group; then uv=uv; else uv="$(CURDIR)/$(BIN)/uv"; fi

# $(call make_venv,<folder>): an environment that runs; one that is there is kept.
make_venv = if ! $(1)/bin/python -c '' >/dev/null 2>&1; then \
	  rm -rf $(1); \
	  if [ "$$uv" = uv ] && [ -z "$$python" ]; then uv venv --quiet --python '>=3.10' $(1); \
	  elif [ "$$uv" = uv ] || [ $(1) != $(VENV) ]; then "$$uv" venv --quiet --python "$$python" $(1); \
	  else "$$python" -m venv $(1) || { rm -rf $(1); \
	    echo "make: $$python cannot make an environment; install its venv module (python3-venv) or uv" >&2; exit 1; }; \
	  fi; fi

# Prometheus comes with no wheel: installed from Debian's package where it is missing and that is possible.
find_prometheus = if ! command -v prometheus >/dev/null || ! command -v promtool >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    export DEBIAN_FRONTEND=noninteractive; \
	    apt-get -o Acquire::Retries=3 update -qq && \
	    apt-get -o Acquire::Retries=3 install -y -qq --no-install-recommends prometheus redis-server; \
	  else echo "make: install prometheus and promtool (on Debian and Ubuntu the package prometheus)" >&2; exit 1; fi; fi

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(find_python); $(find_uv); \
	if [ -z "$$python" ] && [ "$$uv" != uv ]; then \
	  echo "make: no Python 3.10 or newer found (tried python3 and python3.10 to python3.14);" >&2; \
	  echo "make: install one, or say which: make PYTHON=/path/to/python" >&2; exit 1; fi; \
	echo "Preparing $(VENV) (once; a minute or so) ..."; \
	$(call make_venv,$(VENV)) && \
	{ [ "$$uv" = uv ] || [ -x "$$uv" ] || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv; } && \
	"$$uv" pip install --quiet --python $(BIN)/python -c constraints.txt --editable '$(PROJECT)' --group dev
	@touch $@

# SQLAlchemy as named by the folder, everything else as in constraints.txt.
.venv-sa%/.installed: pyproject.toml constraints.txt | $(VENV)/.installed
	@$(find_python); $(find_uv); echo "Preparing .venv-sa$* ..."; \
	$(call make_venv,.venv-sa$*) && \
	grep -v -i '^sqlalchemy==' constraints.txt > .venv-sa$*/constraints.txt && \
	"$$uv" pip install --quiet --python .venv-sa$*/bin/python -c .venv-sa$*/constraints.txt \
	  --editable '$(PROJECT)' $(RUN_GROUPS) 'sqlalchemy==$*'
	@touch $@

# The lowest versions that pyproject.toml allows for what it names itself.
.venv-lowest/.installed: pyproject.toml | $(VENV)/.installed
	@$(find_python); $(find_uv); echo "Preparing .venv-lowest ..."; \
	$(call make_venv,.venv-lowest) && \
	"$$uv" pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct \
	  --editable '$(PROJECT)' $(RUN_GROUPS)
	@touch $@

# The package of PyPI that has this library's import name, and that the benchmark compares with; the rest as in .venv.
.venv-peer/.installed: constraints.txt | $(VENV)/.installed
	@python=$(BIN)/python; $(find_uv); echo "Preparing .venv-peer ..."; \
	$(call make_venv,.venv-peer) && \
	"$$uv" pip install --quiet --python .venv-peer/bin/python -c constraints.txt \
	  'sqlacache[redis]==0.1.3' 'sqlalchemy[asyncio]' asyncpg hiredis
	@touch $@

.PRECIOUS: .venv-sa%/.installed

.PHONY: help install demo serve test test-redis test-direct test-sync test-drivers integration lint format typecheck check bench bench-gate test-benchmarks bench-telemetry \
	explore fuzz soak leaks test-matrix test-lowest transparency transparency-part dashboards dashboards-test constraints clean

help: ## show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile

install: $(VENV)/.installed ## make .venv with everything that development needs

demo: $(VENV)/.installed ## run the example shop under traffic and watch it being cached
	@$(BIN)/python -m examples.demo

serve: $(VENV)/.installed ## leave the example shop up, to be looked at
	@$(BIN)/python -m examples.demo --serve

test: $(VENV)/.installed ## run all tests, on SQLite and on a PostgreSQL that they start
	@$(BIN)/python -m pytest $(WORKERS) $(PYTEST_ARGS)

test-redis: $(VENV)/.installed ## run the tests of everyday situations with every cache on a Redis, for each local tier
	@for local in none validated pushed; do echo "local=$$local:"; \
	  SQLACACHE_TEST_BACKEND=redis SQLACACHE_TEST_LOCAL=$$local \
	    $(BIN)/python -m pytest -p no:cacheprovider tests/situations tests/machine/test_machine.py $(WORKERS) $(PYTEST_ARGS) || exit 1; \
	done

test-direct: $(VENV)/.installed ## run the tests of everyday situations with the sessions that get directly, in memory and on a Redis
	@for backend in memory redis; do echo "backend=$$backend:"; \
	  SQLACACHE_TEST_SESSION=direct SQLACACHE_TEST_BACKEND=$$backend SQLACACHE_TEST_LOCAL=validated \
	    $(BIN)/python -m pytest -p no:cacheprovider tests/situations tests/exactness/test_who_sees_what.py \
	    tests/machine/test_machine.py $(WORKERS) $(PYTEST_ARGS) || exit 1; \
	done

test-sync: $(VENV)/.installed ## run the tests of everyday situations and the state machine with sync engines, in threads
	@SQLACACHE_TEST_FRONT=sync $(BIN)/python -m pytest -p no:cacheprovider \
	  $(SYNC_TESTS) $(WORKERS) $(PYTEST_ARGS)

test-drivers: $(VENV)/.installed ## run the tests of everyday situations, and generated programs, on each further driver
	@for on in $(DRIVERS); do echo "$$on:"; \
	  SQLACACHE_TEST_DATABASES=$$on \
	    $(BIN)/python -m pytest -p no:cacheprovider tests/situations tests/machine/test_machine.py $(WORKERS) $(PYTEST_ARGS) || exit 1; \
	done
	@for on in $(SYNC_DRIVERS); do echo "$$on, ordinary sessions:"; \
	  SQLACACHE_TEST_FRONT=sync SQLACACHE_TEST_DATABASES=$$on \
	    $(BIN)/python -m pytest -p no:cacheprovider tests/situations $(WORKERS) $(PYTEST_ARGS) || exit 1; \
	done

integration: $(VENV)/.installed ## run the tests that need a server; a server that does not start fails them
	@SQLACACHE_REQUIRE_SERVERS=1 $(BIN)/python -m pytest -m integration $(WORKERS) $(PYTEST_ARGS)

lint: $(VENV)/.installed ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/.installed ## let ruff mend what it can
	@$(BIN)/ruff check --fix --exit-zero .
	@$(BIN)/ruff format .

typecheck: $(VENV)/.installed ## mypy, strict, both packages
	@$(BIN)/mypy

check: lint typecheck test demo ## what CI runs

bench: $(VENV)/.installed .venv-peer/.installed ## measure everything that docs/benchmarks.md tells of, and judge it
	@$(BIN)/python -m benchmarks $(BENCH)

bench-gate: $(VENV)/.installed .venv-peer/.installed ## measure what has a goal, and fail where it is worse than benchmarks/baseline.json
	@$(BIN)/python -m benchmarks.gate $(BENCH)

test-benchmarks: $(VENV)/.installed .venv-peer/.installed ## run all tests of the benchmarks, with everybody that they compare with
	@SQLACACHE_TEST_BENCHMARKS=whole SQLACACHE_REQUIRE_PEER=1 $(BIN)/python -m pytest -p no:cacheprovider tests/benchmarks $(PYTEST_ARGS)

bench-telemetry: $(VENV)/.installed ## measure what telemetry adds to a hit
	@$(BIN)/python -m benchmarks.overhead

explore: $(VENV)/.installed ## run every order of readers and writers, in longer stories than `make test` has
	@$(BIN)/python -m tests.explorer $(EXPLORE)

fuzz: $(VENV)/.installed ## try spoilt bytes and odd configuration, 50 times as much as `make test` does
	@SQLACACHE_FUZZ=50 $(BIN)/python -m pytest -p no:cacheprovider tests/fuzz --timeout=3600 $(WORKERS) $(PYTEST_ARGS)

soak: $(VENV)/.installed ## let clients read and write for minutes while Redis, they and their connections break
	@$(BIN)/python -m tests.histories $(SOAK)

leaks: $(VENV)/.installed ## do a million operations, whatever goes wrong with them, and see that nothing grows
	@$(BIN)/python -m tests.leaks $(LEAKS)

test-matrix: $(addprefix test-sqlalchemy-,$(MATRIX)) ## run the tests on SQLAlchemy 1.4, 2.0 and 2.1

test-sqlalchemy-%: .venv-sa%/.installed
	@echo "SQLAlchemy $*:"
	@.venv-sa$*/bin/python -m pytest -p no:cacheprovider $(MATRIX_TESTS) $(WORKERS) $(PYTEST_ARGS)

test-lowest: .venv-lowest/.installed ## run the tests on the lowest versions that pyproject.toml allows
	@.venv-lowest/bin/python -m pytest -p no:cacheprovider $(WORKERS) $(PYTEST_ARGS)

transparency: $(addprefix transparency-,$(TRANSPARENCY)) ## run SQLAlchemy's own tests with and without the cache

transparency-%: .venv-sa%/.installed
	@.venv-sa$*/bin/python -m tests.transparency.run

transparency-part: $(VENV)/.installed ## a part of that, on the newest SQLAlchemy, as CI runs it
	@$(BIN)/python -m tests.transparency.run --part

dashboards: $(VENV)/.installed ## write the Grafana dashboard and the Prometheus rules
	@PYTHONPATH=telemetry $(BIN)/python -m dashboards

dashboards-test: $(VENV)/.installed ## run every query and rule of them on a Prometheus that scrapes the example
	@$(find_prometheus)
	@SQLACACHE_REQUIRE_SERVERS=1 $(BIN)/python -m pytest -p no:cacheprovider tests/dashboards -o python_files="$(DASHBOARDS_TESTS)" $(PYTEST_ARGS)

constraints: $(VENV)/.installed ## compile constraints.txt anew from pyproject.toml
	@$(find_uv); { \
	  echo "# Exact versions for development and CI. Made by: make constraints"; \
	  "$$uv" pip compile --quiet --universal --python-version 3.10 --upgrade --no-header --no-annotate --no-emit-index-url \
	    --no-emit-find-links --all-extras --group dev --group bootstrap pyproject.toml; \
	} > $(VENV)/constraints.new && mv $(VENV)/constraints.new constraints.txt && touch $(VENV)/.installed

clean: ## remove environments, caches and builds
	@rm -rf .venv .venv-sa* .venv-lowest .venv-peer build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .transparency
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
