# The commands of this project. Everything lives in .venv; uv makes it where uv is installed, pip otherwise.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help up install test coverage test-browser test-page screenshots has-chromium has-firefox vendor test-peers check hooks format soak bench bench-compare tour diagram reference picture docs lock audit sbom dist clean

PYTHON ?= python3
BIN := .venv/bin
# All tests run side by side; those of one file one after another, since they may share a server or a system.
UNIT := tests/unit tests/test_architecture.py -n auto --dist worksteal
CONTRACT := tests/contract -n 3 --dist loadfile
REST := tests --ignore=tests/unit --ignore=tests/test_architecture.py --ignore=tests/contract -n 3 --dist loadfile
VENDORED := src/cotacoes/gateway_service/page/vendor
NONE_IS_FINE = $(if $(ARGS),|| [ $$? -eq 5 ])  # where ARGS asks for others
# pip's own lines, a few of them: it is silent or tells every file
PROGRESS := awk '/^Collecting/ && ++found % 10 == 0 { print "  " found " found" } /^Installing/ { print "  writing them" } { fflush() }'
UV := $(shell command -v uv 2>/dev/null)
COMPILE = uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links $(ARGS) pyproject.toml
# what `make install` installs: the checkout, as it is edited, or a wheel (make test WHEEL=dist/….whl)
ITSELF = $(or $(WHEEL),--no-build-isolation -e .)
NO_WHEELS := echo "if there are no wheels for this platform (the README lists those that have them): docker compose up --build"

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' Makefile

up: install ## install on first use, start the whole system, show live quotes
	@$(BIN)/cotacoes up $(ARGS) || [ $$? -eq 130 ]  # Ctrl-C is how it is meant to end

install: .venv/installed ## install into .venv what the system needs

test: .venv/installed-dev ## install what tests need, run all tests but the long ones of soak
	$(BIN)/python -m pytest $(UNIT) $(ARGS) $(NONE_IS_FINE)
	$(BIN)/python -m pytest $(CONTRACT) -m "not soak" $(ARGS) $(NONE_IS_FINE)
	$(BIN)/python -m pytest $(REST) -m "not soak" $(ARGS) $(NONE_IS_FINE)

coverage: .venv/installed-dev ## run all tests but the long ones, print what they cover, fail below the floor; twice as long as test
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest $(UNIT) $(ARGS) $(NONE_IS_FINE)
	$(BIN)/coverage run -m pytest $(CONTRACT) -m "not soak" $(ARGS) $(NONE_IS_FINE)
	$(BIN)/coverage run -m pytest $(REST) -m "not soak" $(ARGS) $(NONE_IS_FINE)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-browser: .venv/installed-browser has-chromium has-firefox ## run the page and the streams in Chromium, Firefox and Node; installs the browsers with apt-get if it can
	@command -v npm >/dev/null || { echo "install Node.js 18 or newer, with npm"; exit 1; }
	cd tests/browser && npm ci --no-audit --no-fund
	COTACOES_TEST_BROWSER=1 $(BIN)/python -m pytest tests/browser -m "not soak" -n 2 --dist loadfile $(ARGS)

screenshots: .venv/installed-browser has-chromium ## run the system, break it, and take the pictures docs/assets/page*.png; ten minutes
	PYTHONPATH=. $(BIN)/python docs/make_screenshots.py

has-chromium:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	echo "Chromium is missing: apt-get install -y chromium"; \
	[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -q && apt-get install -y -q chromium

has-firefox:
	@for name in firefox-esr firefox; do command -v $$name >/dev/null && exit 0; done; \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -q && apt-get install -y -q firefox-esr; } \
	|| echo "Firefox is missing, and its tests are skipped: apt-get install -y firefox-esr"

test-page: ## check the types of the gateway's page and run its tests, without a browser (needs Node.js 20 and npm)
	cd tests/browser && npm ci --no-audit --no-fund && npm run --silent check && npm test --silent

vendor: ## copy the page's chart library from npm, as the lock file has it (needs npm)
	cd tests/browser && npm ci --no-audit --no-fund
	cp tests/browser/node_modules/lightweight-charts/LICENSE $(VENDORED)/LICENSE
	cp tests/browser/node_modules/lightweight-charts/dist/lightweight-charts.standalone.production.mjs \
	$(VENDORED)/lightweight-charts-$$(node -p 'require("./tests/browser/package.json").devDependencies["lightweight-charts"]').js

test-peers: .venv/installed-bench ## hold our reading of exchange frames against ccxt's
	$(BIN)/python -m pytest tests/contract/test_venues_against_ccxt.py $(ARGS)

check: .venv/installed-dev ## format, lint, types, import contracts, spelling, workflows, quick unit tests; under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/typos
	$(BIN)/zizmor --offline --quiet .
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec compose.yaml
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/python -m pytest $(UNIT) -m "not slow" -q

hooks: .venv/installed-dev ## run the quick part of check on what each commit changes (needs pre-commit)
	pre-commit install

format: .venv/installed-dev ## bring the code into its shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

soak: .venv/installed-soak ## the long tests: a hundred and fifty kills at random moments, and what takes long
	$(BIN)/python -m pytest tests -m soak -s $(ARGS)

bench: .venv/installed-bench ## measure the figures, print a table, keep each result in benchmarks/results
	$(BIN)/python -m benchmarks --keep $(ARGS)

bench-compare: .venv/installed-bench ## measure the figures again and fail if one became 20 % worse than its kept result
	$(BIN)/python -m benchmarks --compare $(ARGS)

tour: .venv/installed-dev ## run docs/tutorial/pull-the-plug.md again, and write what came
	PYTHONPATH=. $(BIN)/python docs/make_tour.py

diagram: .venv/installed-dev ## draw the pictures of the patterns' pages anew from the code
	PYTHONPATH=. $(BIN)/python -m docs.make_diagrams

reference: .venv/installed-dev ## write docs/reference anew from the code
	PYTHONPATH=. $(BIN)/python -m docs.make_reference

picture: .venv/installed-dev ## run the system, and draw its terminal into docs/assets/terminal.svg
	PYTHONPATH=. $(BIN)/python docs/make_picture.py

docs: .venv/installed-docs ## build the docs site into site/; open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean

lock: ## compile the lock files anew, with hashes, for every supported Python (needs uv); ARGS=--upgrade for newer releases
	$(COMPILE) --group build -o requirements.lock
	$(COMPILE) --group build --group dev -c requirements.lock -o requirements-dev.lock
	$(COMPILE) --group bench -c requirements-dev.lock -o requirements-bench.lock
	$(COMPILE) --group soak -c requirements-dev.lock -o requirements-soak.lock
	$(COMPILE) --group browser -c requirements-dev.lock -o requirements-browser.lock
	$(COMPILE) --group audit -c requirements-dev.lock -o requirements-audit.lock
	$(COMPILE) --group docs -c requirements-dev.lock -o requirements-docs.lock

audit: .venv/installed-audit ## hold every pinned package against the published vulnerabilities (asks PyPI for each)
	for lock in requirements*.lock; do $(BIN)/pip-audit --strict --require-hashes --disable-pip -r $$lock || exit 1; done

sbom: .venv/installed-audit ## write what an installation consists of, with hashes: sbom.cdx.json (CycloneDX)
	$(BIN)/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible --of JSON -o sbom.cdx.json

dist: .venv/installed-dev ## build the wheel and the sdist into dist/
	rm -rf dist
	$(BIN)/python -c 'from flit_core.buildapi import build_sdist, build_wheel; build_sdist("dist"); build_wheel("dist")'

clean: ## remove .venv and caches; your data (.cotacoes) stays
	rm -rf .venv dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.*

.venv/bin/python:
	@command -v "$(PYTHON)" >/dev/null || { echo "there is no $(PYTHON): name a Python that is, as in make PYTHON=python3.12 up"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 up"; exit 1; }
ifdef UV
	uv venv -q --python $(PYTHON) .venv
else
	@echo "making .venv"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
endif

.venv/installed: requirements.lock pyproject.toml | .venv/bin/python
ifdef UV
	uv pip install -q --python $(BIN)/python --require-hashes -r requirements.lock || { $(NO_WHEELS); exit 1; }
	uv pip install -q --python $(BIN)/python --no-deps $(ITSELF)
else
	@echo "installing the packages of requirements.lock into .venv: once, about half a minute"
	@{ $(BIN)/python -m pip install --no-compile --disable-pip-version-check --require-hashes -r requirements.lock; \
	echo $$? > .venv/pip-ended; } | $(PROGRESS)
	@[ "$$(cat .venv/pip-ended)" = 0 ] || { $(NO_WHEELS); exit 1; }
	@$(BIN)/python -m pip install -q --no-compile --disable-pip-version-check --no-deps $(ITSELF)
	@echo "  compiling them"
	@$(BIN)/python -m compileall -q -j 0 .venv/lib src >/dev/null || true  # some are for other releases of Python
endif
	@touch $@

.venv/installed-%: requirements-%.lock .venv/installed
ifdef UV
	uv pip install -q --python $(BIN)/python --require-hashes -r $<
else
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r $<
endif
	@touch $@

.venv/installed-bench .venv/installed-browser .venv/installed-soak .venv/installed-audit .venv/installed-docs: .venv/installed-dev
