# `make demo` and `make test` are all a fresh machine needs: a python3 and make.
# Everything is installed into .boot and .venv, from requirements.lock, by hash.

BIN := .venv/bin
ENV := .venv/.installed
NATIVE := .venv/.native
SDK := tests/sdk/node_modules/.installed
OLDER := .cache/sdk-older/.installed
CHARTS := .cache/deploy/charts
LINTERS := .cache/deploy/linters/.installed
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 2
# By file: a file's fixtures are made once, and the blocks of a page of docs stay together.
PARALLEL := -n $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-sdk services deploy-tools faults check check-format check-lint check-types \
        check-contracts check-tidy check-docs check-spelling check-lock check-deploy check-native bench up fix site docs lock env clean

help: ## list what you can do
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(ENV) ## see a click in the next email: engine, 12,000 events, a campaign, figures
	$(BIN)/python -m examples.shop.demo

test: $(ENV) $(NATIVE) test-sdk services ## every fast test
	$(PYTEST) $(PARALLEL) -m "not slow and not bench and not faults and not deploy" --durations=10

test-slow: $(ENV) $(NATIVE) test-sdk services deploy-tools ## the long tests: more examples, more kills, all the data
	HYPOTHESIS_PROFILE=deep $(PYTEST) $(PARALLEL) -m slow --timeout=1800 --durations=10

faults: $(ENV) $(NATIVE) services ## a thousand kills, a hundred thousand histories, a cluster under faults; about two hours
	$(PYTEST) -p no:randomly -m faults tests/faults tests/simulation -s --timeout=7200

check: check-format check-lint check-types check-contracts check-tidy check-docs check-spelling check-lock check-deploy check-native ## format, lint, types, contracts, tidy, docs

check-format: $(ENV)
	$(BIN)/ruff format --check --quiet .

check-lint: $(ENV)
	$(BIN)/ruff check --quiet .

check-types: $(ENV)
	$(BIN)/pyright

check-contracts: $(ENV)
	@mkdir -p .cache
	@$(BIN)/lint-imports --no-logo >.cache/contracts.txt 2>&1 || { cat .cache/contracts.txt; exit 1; }
	@tail -n 1 .cache/contracts.txt

check-tidy: $(ENV)
	$(PYTEST) -q -p no:randomly tests/test_tidy.py tests/test_public_api.py

check-docs: $(ENV)
	$(BIN)/python tools/reference.py --check
	$(PYTEST) -q -p no:randomly tests/test_docs.py docs README.md
	$(BIN)/zensical build --strict -f mkdocs.yml >.cache/site.log 2>&1 || { cat .cache/site.log; exit 1; }

check-spelling: $(ENV)
	git ls-files -z | xargs -0 $(BIN)/codespell

check-lock:
	@if grep -nE '[a-z]+://' requirements.lock tools/boot.lock tests/sdk/older.lock deploy/*.lock || grep -n '"resolved"' tests/sdk/package-lock.json; then \
	  echo 'a lock holds an address; fix: make lock' >&2; exit 1; fi

# The chart is rendered by Helm's own library and the compose file loaded by Compose's, linked into one program
# by Go; other linters are wheels. What this machine lacks is said, and its checks are skipped; in CI it is an error.
deploy-tools: $(LINTERS) $(if $(shell command -v go 2>/dev/null),$(CHARTS))

check-deploy: $(ENV) deploy-tools
	$(PYTEST) -q -p no:randomly -m "not slow" tests/deploy

# What of the compiler's tools is missing, or too old, is said, and its check is skipped; without cargo it is an error in CI.
check-native:
	@if ! command -v cargo >/dev/null; then \
	  echo 'cargo is not installed: native/ is not checked' >&2; [ "$$CI" != true ] || exit 1; \
	elif ! cargo fetch --quiet --locked --manifest-path native/Cargo.toml; then \
	  echo 'cargo is older than native/Cargo.toml wants, or has no registry: native/ is not checked' >&2; \
	else \
	  if cargo fmt --version >/dev/null 2>&1; then cargo fmt --check --manifest-path native/Cargo.toml || exit 1; \
	  else echo 'rustfmt is not installed: the format of native/ is not checked' >&2; fi; \
	  if cargo clippy --version >/dev/null 2>&1; then \
	    cargo clippy --quiet --release --locked --manifest-path native/Cargo.toml --target-dir .cache/native -- -D warnings || exit 1; \
	  else echo 'clippy is not installed: native/ is not linted' >&2; fi; \
	fi

$(CHARTS): tools/deploy/main.go tools/deploy/go.mod tools/deploy/go.sum
	@mkdir -p $(@D)
	@cd tools/deploy && go build -ldflags='-s -w' -o ../../$@ . || [ "$$CI" != true ]

$(LINTERS): deploy/linters.lock | $(ENV)
	@rm -rf $(@D)
	@.boot/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes --no-deps \
	  --target $(@D) -r deploy/linters.lock && touch $@ || { rm -rf $(@D); [ "$$CI" != true ]; }

bench: $(ENV) $(NATIVE) ## measure, beside peers, in one run
	$(BIN)/python -m benchmarks.run

up: $(ENV) ## run the example shop until you stop it
	$(BIN)/penstock up examples/shop

fix: $(ENV) ## format, sort imports, safe fixes
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format --quiet .

site: $(ENV) ## the documentation as a site, in .cache/site
	$(BIN)/zensical build --strict -f mkdocs.yml

docs: $(ENV) ## write docs/reference from the code
	$(BIN)/python tools/reference.py

lock: $(ENV) ## resolve the dependencies again; no registry address is written
	.boot/bin/uv pip compile --quiet pyproject.toml --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header $(UPGRADE) -o requirements.lock
	.boot/bin/uv pip compile --quiet tests/sdk/older.in --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header $(UPGRADE) -o tests/sdk/older.lock
	.boot/bin/uv pip compile --quiet pyproject.toml --extra kafka --extra redis --extra registry --extra s3 \
	  -c requirements.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  -o deploy/requirements.lock
	.boot/bin/uv pip compile --quiet deploy/build.in -c requirements.lock --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header -o deploy/build.lock
	.boot/bin/uv pip compile --quiet deploy/linters.in --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header $(UPGRADE) -o deploy/linters.lock
	cd tests/sdk && npm install --package-lock-only --ignore-scripts
	@$(MAKE) --no-print-directory check-lock

env: $(ENV) $(NATIVE) ## make the environment; `make test` and `make demo` do it too

$(ENV): requirements.lock tools/boot.lock tools/environment.sh pyproject.toml
	@tools/environment.sh
	@mkdir -p .cache && touch $(ENV)

# The accelerator of the fold, where there is a compiler; without it the same leaves are folded in Python.
$(NATIVE): $(ENV) native/Cargo.toml native/Cargo.lock native/build.rs $(wildcard native/src/*.rs) tools/native.sh
	@tools/native.sh
	@touch $(NATIVE)

# Node's SDKs drive the collector in the tests. Where there is no npm those tests are skipped and
# say so; in CI they fail. Python SDKs that cannot live beside those of .venv have a folder of theirs.
test-sdk: $(OLDER) $(if $(shell command -v npm 2>/dev/null),$(SDK))

# Kafka and other real servers, which tests start for themselves. What can't be had on this machine is
# said, and its tests are skipped; in CI it is an error.
services: $(ENV) ## install the real servers that tests start
	@$(BIN)/python -m tools.services install

$(OLDER): tests/sdk/older.lock | $(ENV)
	@rm -rf $(@D)
	@.boot/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
	  --target $(@D) -r tests/sdk/older.lock
	@touch $@

$(SDK): tests/sdk/package-lock.json tests/sdk/package.json tests/sdk/.npmrc
	@cd tests/sdk && npm ci --ignore-scripts --silent || [ "$$CI" != true ]
	@mkdir -p $(@D) && touch $@

clean: ## remove environments and caches, keep your data
	rm -rf .venv .boot .cache .pytest_cache .ruff_cache .hypothesis tests/sdk/node_modules
