# Every target does its own set-up; `make help` lists them.
PY := .venv/bin/python
SETUP := sh tools/setup.sh

.PHONY: help demo test check bench fuzz bogo format clean
help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

demo:  ## see it at work: a pool, keys in a token, curl against a program without keys (KEEP=1 leaves it running)
	@$(SETUP) demo
	@$(PY) -m demo

test:  ## install what the tests need and run them all
	@$(SETUP) test
	@$(PY) -m pytest -q -n 2 --dist loadfile $(ARGS)

check:  ## ruff, mypy --strict, import arrows, documentation
	@$(SETUP) check
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@$(PY) -m tools.check_architecture
	@$(PY) -m tools.check_docs

bench:  ## CPU, memory and latency beside haproxy and stunnel, in one run
	@$(SETUP) bench
	@$(PY) -m bench $(ARGS)

fuzz:  ## coverage-guided fuzzing of every parser (SECONDS=60 for each target)
	@$(SETUP) fuzz
	@$(PY) -m tests.fuzz --seconds $${SECONDS:-60}

bogo:  ## fetch, build and run BoringSSL's protocol test suite against the engine
	@$(SETUP) bogo
	@$(PY) -m tests.bogo $(ARGS)

format:  ## bring the code into its format
	@$(SETUP) check
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

clean:  ## remove what the targets made, outside of the sources
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
