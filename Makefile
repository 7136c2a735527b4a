# What people and CI run. Each target stands alone.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help deps fmt check fuzz test fresh demo bench install

PLUGINS := causeway-bridge causeway-ipam causeway-service
PROGRAMS := causewayd causeway
# What LINKS=1 links: the names that clients ask for to ours, and to what Debian has of upstream's.
OURS := bridge:causeway-bridge host-local:causeway-ipam portmap:causeway-service
UPSTREAM := firewall loopback tuning
CARGO ?= cargo
BINDIR ?= /opt/cni/bin
SBINDIR ?= /usr/local/bin
UNITDIR ?= /etc/systemd/system
MODULESDIR ?= /etc/modules-load.d
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
HOST = $(TARGET_DIR)/$(shell rustc --print host-tuple)
RELEASE = $(HOST)/release
DEMO := $(PLUGINS) $(PROGRAMS)

help:
	@echo 'make deps     install what tests, demo and benchmarks need beside Rust'
	@echo 'make fmt      format the sources'
	@echo 'make check    format, lints, unit and property tests; minutes, needs no root'
	@echo 'make test     every check; the last line says what passed and failed'
	@echo '              T=bridge: this test program, package or part of a name alone; T='\''bridge one_mtu'\'': both'
	@echo 'make fresh    make test of HEAD in a minimal Debian 12 that has never seen the project, as root'
	@echo 'make fuzz     ten minutes of random input for each parser'
	@echo 'make demo     attach containers in a lab and show what happens'
	@echo 'make bench    measure against the upstream plugins in the same run'
	@echo 'make install  build; plugins into $$(DESTDIR)$(BINDIR), causewayd and causeway into $$(DESTDIR)$(SBINDIR)'
	@echo '              LINKS=1: also links with the names of upstream'\''s plugins, which nerdctl asks for'

deps:
	tests/deps.sh

fmt:
	$(CARGO) fmt --all

check:
	tests/check.sh

# T counts on the command line only: a variable of that name in the environment is another's.
test: deps
	tests/test.sh $(if $(filter command,$(firstword $(origin T))),$(T))

# Half an hour. FRESH='-p causeway-tests --test lab' runs these tests alone.
fresh:
	tests/fresh.sh test $(FRESH)

# Needs a nightly compiler and cargo-fuzz.
fuzz:
	tests/deps.sh fuzz
	set -e; for target in manifest nft-decode api-json api-body store-record cni-config dns-query; do tests/fuzz.sh $$target 600; done

# A profile of its own and only what it starts: the first container is attached minutes earlier.
demo:
	tests/deps.sh demo
	$(CARGO) build --profile demo --locked $(DEMO:%=-p %) -p causeway-tests $(DEMO:%=--bin %) --bin causeway-testserver
	CAUSEWAY_BIN='$(abspath $(HOST)/demo)' CAUSEWAY_TOOLS='$(CURDIR)/target/tools/bin' tests/demo.sh

bench: deps
	$(CARGO) build --workspace --bins --release --locked
	tests/enter --enter '$(RELEASE)/causeway-bench'

# A program may be running while it is replaced: a rename leaves the running one alone, where
# writing into its file fails with "text file busy".
define put
	install -d '$(DESTDIR)$(2)'
	for program in $(1); do \
	  install -m 755 "$(RELEASE)/$$program" "$(DESTDIR)$(2)/.$$program.new" && \
	  mv -f "$(DESTDIR)$(2)/.$$program.new" "$(DESTDIR)$(2)/$$program" || exit 1; \
	done
endef

install:
	$(CARGO) build --release --locked $(PLUGINS:%=-p %) $(PROGRAMS:%=-p %)
	$(call put,$(PLUGINS),$(BINDIR))
	$(call put,$(PROGRAMS),$(SBINDIR))
# People type it: show, repair, import.
ifneq ($(BINDIR),$(SBINDIR))
	ln -sfn '$(BINDIR)/causeway-ipam' '$(DESTDIR)$(SBINDIR)/causeway-ipam'
endif
	install -D -m 644 conf/causewayd.service '$(DESTDIR)$(UNITDIR)/causewayd.service'
	install -D -m 644 conf/causeway.modules '$(DESTDIR)$(MODULESDIR)/causeway.conf'
ifeq ($(LINKS),1)
	set -e; cd '$(DESTDIR)$(BINDIR)'; for pair in $(OURS) $(foreach one,$(UPSTREAM),$(one):/usr/lib/cni/$(one)); do \
	  name=$${pair%%:*} target=$${pair#*:}; \
	  if [ "$$(readlink "$$name")" = "$$target" ]; then :; \
	  elif [ -e "$$name" ] || [ -L "$$name" ]; then echo "$(BINDIR)/$$name is there and stays as it is"; \
	  elif [ -e "$$target" ]; then ln -s "$$target" "$$name"; \
	  else echo "$(BINDIR)/$$name is not made: there is no $$target (package containernetworking-plugins)"; fi; \
	done
endif
