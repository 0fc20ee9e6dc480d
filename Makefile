# SPDX-License-Identifier: Apache-2.0
#
# A short front for the build. On a fresh Debian 12 machine each target installs what it needs.
#
#   make run     build, then serve examples/handlers on port 3000
#   make test    unit tests and tests of the server over HTTP
#   make check   make test, and the slow parts: sanitizers, types, API fuzzing, web globals, the siege
#   make bench   figures of this machine, beside a plain Node server
#   make build   build/nexus, nothing else
#   make image   the container image of deploy/docker
#   make docs    re-make what is generated: pages of docs/, the rules for the Prometheus operator, the dashboard

BUILD ?= build
PORT ?= 3000
TARGETS ?= nexus
test bench docs: TARGETS = all
CACHE := $(or $(NEXUS_BUILD_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/nexus-build)
VENV := $(CACHE)/venv
export NEXUS_BUILD_CACHE := $(CACHE)

BUILD_PACKAGES := gcc libc6-dev clang lld wasi-libc libclang-rt-14-dev-wasm32 wabt binutils git meson ninja-build pkg-config \
                  python3 python3-pip python3-venv libsodium-dev libzstd-dev libhiredis-dev libcurl4-openssl-dev libyaml-dev libcmocka-dev
TEST_PACKAGES := curl prometheus redis-server openssl ca-certificates
CHECK_PACKAGES := nodejs npm podman buildah runc debootstrap
BENCH_PACKAGES := nodejs npm wrk

# Installs the packages of the list that are missing; says so, because it takes a while.
install = @missing="$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q '^install ok' || command -v $$p >/dev/null || echo $$p; done)"; \
  if [ -n "$$missing" ]; then echo "make: installing" $$missing; \
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi

.PHONY: build build-packages run test check bench image docs clean

build: build-packages
	@test -f $(BUILD)/build.ninja || meson setup $(BUILD) $(if $(CI),--werror) $(if $(REVISION),-Drevision=$(REVISION)) >$(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }
	@rm -f $(BUILD).log
	ninja -C $(BUILD) --quiet $(TARGETS)

build-packages:
	$(call install,$(BUILD_PACKAGES))

run: build
	@echo
	@echo "try:  curl -s http://127.0.0.1:$(PORT)/run/cart -d @examples/cart.json"
	@echo
	PORT=$(PORT) HANDLERS_DIR=$${HANDLERS_DIR:-examples/handlers} exec $(BUILD)/nexus serve

$(VENV)/ready-%: tests/requirements-%.txt
	@echo "make: preparing the Python environment for tests"
	@test -x $(VENV)/bin/python || python3 -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

test: build
	$(call install,$(TEST_PACKAGES))
	@$(MAKE) --no-print-directory $(VENV)/ready-test
	meson test -C $(BUILD) --print-errorlogs
	$(VENV)/bin/pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests/integration

check: test
	$(call install,$(CHECK_PACKAGES))
	@$(MAKE) --no-print-directory $(VENV)/ready-check
	scripts/check $(VENV) $(CACHE)

bench: build
	$(call install,$(BENCH_PACKAGES))
	python3 bench/run.py --nexus $(BUILD)/nexus --build $(BUILD)

# BUILDER may be anything that takes the options of docker build.
COMMIT_TIME = $(shell git log -1 --format=%ct)
BUILDER ?= $(if $(shell command -v docker),docker build,buildah build --format docker --timestamp $(COMMIT_TIME))
VERSION = $(shell sed -n "s/^  version: '\(.*\)',/\1/p" meson.build)
IMAGE ?= nexus:$(VERSION)
image:
	$(BUILDER) -f deploy/docker/Dockerfile -t $(IMAGE) --build-arg VERSION=$(VERSION) \
	  --build-arg REVISION=$(shell git describe --always --abbrev=12 --exclude='*' --dirty) --build-arg SOURCE_DATE_EPOCH=$(COMMIT_TIME) .

docs: build
	$(BUILD)/docs_tool docs
	deploy/prometheus/generate >deploy/k8s/components/monitoring/prometheusrule.yaml
	deploy/grafana/generate >deploy/grafana/nexus.json

clean:
	rm -rf $(BUILD) build-*
