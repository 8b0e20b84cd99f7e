# make demo   sets everything up and runs the main job on a phantom
# make test   sets everything up and passes the tests
# make sbom   writes what is installed to dist/sbom.cdx.json (CycloneDX)
# make audit  asks the advisory databases about every pinned package
# make reproduce-cards   judges every shipped model again and fails where its card says otherwise (DATA=folder of data sets)
# make secrets writes random secrets for compose.yaml, once
# make check-deploy judges compose.yaml, Dockerfiles, Kubernetes, systemd, rules and dashboard; make image builds the image by buildah and runs it
# make docs   builds the documentation into site/, and from results that are there a methods report and slides into dist/
# make viewer brings the OHIF pages and the browser driver that `make test-long` uses

PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
TOOLS := .venv/tools
STAMP := .venv/installed
JOBS ?= 3
DEBIAN := orthanc orthanc-python orthanc-dicomweb dcmtk dicom3tools postgresql poppler-utils strace openssl prometheus docker-compose
NEEDED := Orthanc storescu dcmdump dsrdump dciodvfy pdftotext strace openssl promtool docker-compose
export PATH := $(PATH):/usr/sbin

.PHONY: install demo docs test test-quick test-long lint format counterparts reproduce-cards viewer bench secrets check-deploy image sbom audit clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "nadir needs Python 3.11 or newer: install it, or set PYTHON=/path/to/python3"; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv .venv || { echo "python's venv module is missing: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[learn,fast,test,lint,docs,oidc]'
	@touch $@

demo: install
	$(BIN)/nadir demo --out demo-out

counterparts:
	@.ci/counterparts "$(DEBIAN)" "$(NEEDED)"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: install counterparts lint
	$(BIN)/pytest -n $(JOBS) --dist loadgroup -m "not long"

test-long: install counterparts viewer
	$(BIN)/pytest -n $(JOBS) --dist loadgroup

DATA ?= $(or $(NADIR_TEST_DATA),../shared/data)
reproduce-cards: install
	$(BIN)/python -m training.evaluate.cards $(DATA)

viewer:
	@command -v npm >/dev/null || { echo "npm is missing: apt-get install nodejs npm"; exit 1; }
	@command -v chromium >/dev/null || apt-get install --yes --quiet --no-install-recommends chromium || { echo "chromium is missing: apt-get install chromium"; exit 1; }
	@$(foreach package,@ohif/app@3.13.2 playwright-core@1.65.1,.ci/unpack "$(package)" &&) true

secrets:
	@.ci/secrets

check-deploy: install counterparts
	$(BIN)/hadolint node/Dockerfile orthanc/Dockerfile
	$(BIN)/pytest -n0 -m "not long" tests/deploy

image:
	@.ci/image

bench: install counterparts
	$(BIN)/python benchmarks/ingest.py --json bench/ingest.json
	$(BIN)/python benchmarks/pipeline.py --json bench/pipeline.json
	$(BIN)/python benchmarks/settle_to_delivered.py

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python benchmarks/methods_report.py

$(TOOLS)/installed: $(STAMP)
	@$(BIN)/python -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt cyclonedx-bom pip-audit
	@touch $@

sbom: $(TOOLS)/installed
	@mkdir -p dist
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file dist/sbom.cdx.json $(BIN)/python

audit: $(TOOLS)/installed
	@.ci/audit $(TOOLS)/bin

clean:
	rm -rf .venv demo-out node_modules
