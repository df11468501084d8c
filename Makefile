# Each target does its own set-up: a virtual environment, the packages, the Go peers.
#   make demo    start a service and call it by name
#   make test    the whole test suite, with Go Micro as the peer where Go is present, and with the
#                servers the plugins are for, which it installs where it may
#   make check   format, lint, types, import rules, documentation, speed against a bare probe
#   make bench   compare the speed with other frameworks
#   make bench-streams   the same for streams
#   make bench-brokers, make bench-registries   the same for these, with their servers
#   make soak     work a fleet for an hour (SECONDS=3600) and see that nothing grows
#   make reliability  prove what is promised under failure, and write docs/reliability.md
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TESTS ?= tests
SECONDS ?= 3600
# Tests mostly wait, so several run at a time; those of one file share what it starts. A machine that
# is too busy for one of them can be told from a fault by running that alone.
PYTEST ?= -n 4 --dist loadfile
export PYTHONDONTWRITEBYTECODE = 1

.PHONY: demo test check format bench bench-streams bench-brokers bench-registries reliability soak clean

$(VENV)/made:
	@echo "--- a virtual environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit("Shoal needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/installed: $(VENV)/made pyproject.toml
	@echo "--- installing shoal"
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/developed: $(VENV)/installed
	@echo "--- installing what tests and checks need"
	@$(BIN)/python -m pip install --quiet --editable '.[all]' --group dev
	@touch $@

demo: $(VENV)/installed
	@$(BIN)/python examples/demo.py

test: $(VENV)/developed
	@command -v go >/dev/null || echo "--- Go is not here: the tests with Go Micro are left out"
	@$(BIN)/python -m tests.servers
	$(BIN)/python -m pytest $(PYTEST) $(TESTS) || { [ $$? -eq 1 ] && \
		echo "--- what failed beside other tests is run once more, by itself" && \
		$(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(TESTS); }

check: $(VENV)/developed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_docs.py tests/test_rules.py
	$(BIN)/python -m bench.regression

format: $(VENV)/developed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/bench: $(VENV)/installed bench/requirements.txt
	@echo "--- installing the peers to compare with"
	@$(BIN)/python -m pip install --quiet -r bench/requirements.txt
	@touch $@

bench: $(VENV)/bench
	$(BIN)/python -m bench $(BENCH)

bench-streams: $(VENV)/bench
	$(BIN)/python -m bench.streams $(BENCH)

$(VENV)/bench-servers: $(VENV)/bench
	@$(BIN)/python -m pip install --quiet --editable '.[all]'
	@$(BIN)/python -m tests.servers
	@touch $@

bench-brokers: $(VENV)/bench-servers
	$(BIN)/python -m bench.brokers $(BENCH)

bench-registries: $(VENV)/bench-servers
	$(BIN)/python -m bench.registries $(BENCH)

soak: $(VENV)/developed
	$(BIN)/python -m bench.soak --seconds $(SECONDS)

# Every promise, then again with the mechanism behind it switched off, which must be noticed.
reliability: $(VENV)/developed
	@$(BIN)/python -m tests.servers
	$(BIN)/python -m bench.reliability --json bench/reliability.json --page docs/reliability.md
	$(BIN)/python -m bench.reliability --without --json bench/reliability.json --page docs/reliability.md

clean:
	rm -rf .venv .venv-* .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
