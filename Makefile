# Two commands do all the set-up: `make serve` and `make test`.
VENV := .venv
PYTHON := $(VENV)/bin/python
AUDIT := $(VENV)/audit
SBOM := $(VENV)/sbom

.PHONY: serve test check docs audit sbom licences metrics-picture compose-test clean

serve: ## Set up .venv without torch, and serve the shipped bundle on http://127.0.0.1:8000
	@deploy/install service
	@$(PYTHON) -m service

# Two files at a time, each with one thread for its mathematics: as fast on two cores as on many.
test: ## Install everything the tests need, and run them
	@deploy/install all
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest --numprocesses 2 --dist loadfile

check: ## Lint, types and import rules (after `make test` has installed the tools)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

# A warning, such as a link to nowhere, is a failure.
docs: ## Build the documentation into build/docs (after `make test` has installed the tools)
	@NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --quiet --strict --config-file docs/mkdocs.yml
	@echo "build/docs/index.html"

# Needs the network; a package that cannot be looked up is a failure, not a pass.
audit: ## Look up known vulnerabilities of every version in deploy/constraints.txt
	@test -x $(AUDIT)/bin/pip-audit || { $${PYTHON_BOOTSTRAP:-python3} -m venv $(AUDIT) && \
	    $(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1; }
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off \
	    --requirement deploy/constraints.txt

# Of what the image of the target `cpu` holds: an environment of the same packages is made for it.
$(SBOM)/runtime: pyproject.toml deploy/constraints.txt
	@rm -rf $@ && $${PYTHON_BOOTSTRAP:-python3} -m venv --without-pip $@
	@$(PYTHON) -m pip --disable-pip-version-check --python $@/bin/python install --quiet \
	    --constraint deploy/constraints.txt ".[cpu,tracing]"

sbom: $(SBOM)/runtime ## Write build/sbom.cdx.json: packages and bundles that are shipped, as CycloneDX
	@test -x $(SBOM)/bin/cyclonedx-py || { $${PYTHON_BOOTSTRAP:-python3} -m venv $(SBOM) && \
	    $(SBOM)/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0; }
	@mkdir -p build
	$(SBOM)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	    --output-file build/sbom.cdx.json $(SBOM)/runtime/bin/python
	$(PYTHON) deploy/sbom_bundles.py build/sbom.cdx.json bundles/*

licences: $(SBOM)/runtime ## Write build/licences.md: the licence of every package that is shipped
	@mkdir -p build
	$(SBOM)/runtime/bin/python deploy/licences.py > build/licences.md

metrics-picture: ## Draw docs/metrics.png: the shipped service under load, as Prometheus sees it
	$(PYTHON) docs/draw_metrics.py

compose-test: ## Build the image, start docker-compose.yml and break it (root, Debian, minutes)
	@$(PYTHON) -m tests.compose

clean: ## Remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
