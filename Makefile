# Two commands: `make book` and `make test`. Both make what they need and are cheap the second time.
# The first Python that runs and is of a version that was tested; another one: make PYTHON=/path/to/python3.12
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PAGES ?=

.PHONY: book test publish release lock clean

# One environment for both doors: the stamp is renewed only when the declaration or the pins change.
.venv/done: pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "Cellbook needs Python 3.11, 3.12 or 3.13, and none was found: install one, or run make PYTHON=/path/to/python3.12"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[book]'
	@touch $@

.venv/done-test: .venv/done
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[book,test]'
	@touch $@

book: .venv/done
	$(BIN)/cellbook book

test: .venv/done-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cellbook sync --check
	$(BIN)/jupyter-book build --all -W -n --keep-going .
	CELLBOOK_SITE=_build/html $(BIN)/pytest -n auto --dist loadfile
	$(BIN)/cellbook verify

# Replace the committed pages and results by those that `make book` executed (PAGES="classical" for some).
publish: .venv/done
	$(BIN)/cellbook publish --from _build/book/runs $(PAGES)

# All that is given to readers in _build/release, with checksums; refused while a page is stale. STORE has the weights.
STORE ?= runs
release: .venv/done
	$(BIN)/cellbook release --store $(STORE)

lock: .venv/done-test
	@{ sed -n '/^#/p' requirements.lock; $(BIN)/python -m pip freeze --exclude-editable | grep -v '^#' | sed 's/+cpu//'; } > .lock
	@mv .lock requirements.lock

clean:
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache
