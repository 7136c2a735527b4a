# What people and CI run. Each target stands alone.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help deps fmt fuzz test demo bench install

PLUGINS := causeway-bridge causeway-ipam causeway-service
CARGO ?= cargo
BINDIR ?= /opt/cni/bin
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
RELEASE = $(TARGET_DIR)/$(shell rustc --print host-tuple)/release

help:
	@echo 'make deps     install what tests, demo and benchmarks need beside Rust'
	@echo 'make fmt      format the sources'
	@echo 'make test     every check; the last line says what passed and failed'
	@echo 'make fuzz     ten minutes of random input for each parser'
	@echo 'make demo     attach containers in a lab and show what happens'
	@echo 'make bench    measure against the upstream plugins in the same run'
	@echo 'make install  build and put the plugins into $$(DESTDIR)$(BINDIR)'

deps:
	tests/deps.sh

fmt:
	$(CARGO) fmt --all

test: deps
	tests/test.sh

# Needs a nightly compiler and cargo-fuzz.
fuzz:
	set -e; for target in manifest nft-decode api-json cni-config; do tests/fuzz.sh $$target 600; done

demo: deps
	$(CARGO) build --workspace --bins --release --locked
	CAUSEWAY_BIN='$(abspath $(RELEASE))' CAUSEWAY_TOOLS='$(CURDIR)/target/tools/bin' tests/demo.sh

bench: deps
	$(CARGO) build --workspace --bins --release --locked
	tests/enter --enter '$(RELEASE)/causeway-bench'

# A plugin may be running while it is replaced: a rename leaves the running program alone, where
# writing into its file fails with "text file busy".
install:
	$(CARGO) build --release --locked $(PLUGINS:%=-p %)
	install -d '$(DESTDIR)$(BINDIR)'
	for plugin in $(PLUGINS); do \
	  install -m 755 "$(RELEASE)/$$plugin" "$(DESTDIR)$(BINDIR)/.$$plugin.new" && \
	  mv -f "$(DESTDIR)$(BINDIR)/.$$plugin.new" "$(DESTDIR)$(BINDIR)/$$plugin" || exit 1; \
	done
