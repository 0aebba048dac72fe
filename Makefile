# Everything happens in .venv: no target needs anything installed but Python 3.11+ with venv.
# `make run` is all that a new user has to know.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The stamp says for which requirements.txt and which Makefile the environment was filled.
STAMP := $(VENV)/.installed
# gunicorn's C parser has no wheel: taken where a compiler is at hand, else gunicorn uses Python.
FAST_PARSER := gunicorn_h1c==0.6.9
# Tests wait for servers more than they compute; with more, those about time run late on two cores.
TEST_PROCESSES ?= 2
# luacheck reads the scripts as Redis does, with their includes in place.
LUA_ASSEMBLED := $(VENV)/lua

.DEFAULT_GOAL := help
.PHONY: help run test faults soak soak-engine soak-faults sabotage check bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(STAMP) ## everything, on this machine; Ctrl-C stops it, the data stays in ./data
	@exec $(BIN)/python -m app up

test: $(STAMP) ## the whole test suite, some files at a time
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

faults: $(STAMP) ## two hundred kills and every other fault under load; four minutes
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/faults

soak: soak-engine soak-faults ## a million commands, all short sequences, two thousand kills; three hours

soak-engine: $(STAMP)
	@CROSSBOOK_TEST_COMMANDS=1000000 CROSSBOOK_TEST_SHARE=1 \
	  $(BIN)/python -m pytest -rP -o faulthandler_timeout=0 -k "equal_the_reference or equals_the_reference" \
	  tests/integration/test_engine_redis.py

soak-faults: $(STAMP)
	@CROSSBOOK_TEST_SOAK_KILLS=2000 CROSSBOOK_TEST_SOAK_S=3600 \
	  $(BIN)/python -m pytest -rP -o faulthandler_timeout=0 -k soak tests/faults
	@CROSSBOOK_TEST_CUTS=1000000 \
	  $(BIN)/python -m pytest -rP -o faulthandler_timeout=0 -k cut_anywhere tests/faults

sabotage: $(STAMP) ## puts defects into copies of the code and shows that the tests notice each
	@$(BIN)/python -m tests.sabotage

check: $(STAMP) ## formatter, linters and types of Python, Lua, JavaScript, shell and containers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@command -v luacheck >/dev/null || { \
	  echo "luacheck is missing; get it with: apt-get install lua-check" >&2; exit 1; }
	@rm -rf $(LUA_ASSEMBLED)
	$(BIN)/python -m app.engine.scripts $(LUA_ASSEMBLED)
	luacheck --no-color $(LUA_ASSEMBLED)
	$(BIN)/shellcheck .ci/run
	$(BIN)/hadolint Dockerfile
	$(BIN)/oxlint app/web/static
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

bench: $(STAMP) ## the benchmarks, as ratios within one run
	@$(BIN)/python -m tests.benchmarks

clean: ## removes the environment and caches, never the data
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find app tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements.txt Makefile app/web/chart_library.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 run" >&2; \
	       exit 1; }
	@test -x $(BIN)/python -a -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "get venv with: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing the packages of requirements.txt into $(VENV) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check $(FAST_PARSER) \
	  >/dev/null 2>&1 || echo "no C compiler or no Python headers: gunicorn will parse HTTP in Python"
	@$(BIN)/python -m app.web.chart_library \
	  || echo "the page goes without its chart; later: $(BIN)/python -m app.web.chart_library"
	@touch $@
