# pmpp. "make help" lists the targets.
#
# make builds into build/, make install only copies. The Python package, psycopg and what it needs
# are installed together in a directory of their own, $(pkglibdir)/pmpp/<version>/.

EXTENSION := pmpp
EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" pmpp.control)

DATA_built = build/pmpp--$(EXTVERSION).sql
REGRESS = setup $(filter-out setup,$(sort $(patsubst sql/%.sql,%,$(wildcard sql/*.sql))))
REGRESS_OPTS = --outputdir=build/regress
EXTRA_CLEAN = build

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

.DEFAULT_GOAL := all

# ---- Two commands that do everything, also where nothing is installed yet ----

.PHONY: demo test prerequisites help

demo: prerequisites ## install what is missing, build, and show pmpp at work (KEEP=1 leaves the server running)
	$(MAKE) all
	$(SUDO) $(MAKE) install PG_CONFIG='$(PG_CONFIG)'
	$(MAKE) run-demo

test: prerequisites ## install what is missing, build, and run all checks and tests
	$(MAKE) all build/venv.done
	$(SUDO) $(MAKE) install PG_CONFIG='$(PG_CONFIG)'
	$(MAKE) run-tests

prerequisites:
	tools/prerequisites

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

ifeq ($(wildcard $(PGXS)),)

.PHONY: all install uninstall installcheck clean
all install uninstall installcheck clean:
	@echo "pmpp needs the server development files of PostgreSQL (Debian: postgresql-server-dev-15)." >&2
	@echo "If they are installed, tell where: make PG_CONFIG=/path/to/pg_config" >&2
	@exit 1

else

include $(PGXS)

# ---- Building ----

PYTHON_SOURCES := $(wildcard python/src/pmpp/*.py) python/src/pmpp/py.typed
PACKAGE_DIR := $(DESTDIR)$(pkglibdir)/pmpp/$(EXTVERSION)

all: build/package.done ## build the extension and its Python package into build/

build:
	mkdir -p $@

build/pmpp--$(EXTVERSION).sql: $(sort $(wildcard sql/extension/*.sql)) pmpp.control | build
	cat $(filter %.sql,$^) | sed 's/@VERSION@/$(EXTVERSION)/g' > $@

# The interpreter is the one that PL/Python embeds, $(PYTHON) of PGXS, not the first on the PATH.
build/venv/bin/pip: | build
	$(PYTHON) -m venv build/venv

# psycopg[c] is compiled here, on the libpq that the server uses too: about a minute, once.
build/psycopg.done: python/server-requirements.txt | build/venv/bin/pip
	rm -rf build/package
	build/venv/bin/pip install --quiet --no-compile --target build/package --requirement $<
	$(PYTHON) -m compileall -q --invalidation-mode unchecked-hash build/package
	touch $@

build/package.done: build/psycopg.done $(PYTHON_SOURCES)
	rm -rf build/package/pmpp
	mkdir build/package/pmpp
	cp $(PYTHON_SOURCES) build/package/pmpp
	$(PYTHON) -m compileall -q --invalidation-mode unchecked-hash build/package/pmpp
	touch $@

# ---- Installing ----

install: install-package ## copy what was built to where PostgreSQL looks for it
uninstall: uninstall-package ## remove what make install copied

.PHONY: install-package uninstall-package
install-package: all
	rm -rf '$(PACKAGE_DIR)'
	$(MKDIR_P) '$(PACKAGE_DIR)'
	cp -R build/package/. '$(PACKAGE_DIR)'
	chmod -R u=rwX,go=rX '$(PACKAGE_DIR)'

uninstall-package:
	rm -rf '$(PACKAGE_DIR)'
	-rmdir '$(dir $(PACKAGE_DIR))' 2>/dev/null

installcheck: ## run the regression tests (sql/, expected/) on the server that PGHOST and PGPORT name

# ---- Demonstration and tests ----

.PHONY: run-demo run-tests lint checkver unit fuzz bench

run-demo:
	PG_CONFIG='$(PG_CONFIG)' tools/demo $(if $(KEEP),--keep)

# A development environment: psycopg[binary], whose libpq is newer than the server's, and test tools.
build/venv.done: python/pyproject.toml | build/venv/bin/pip
	build/venv/bin/pip install --quiet --editable 'python[test]'
	touch $@

run-tests: checkver lint unit
	tools/cluster.py $(PG_CONFIG) -- $(MAKE) installcheck
	build/venv/bin/pytest tests/server tests/engine
	PYTHONPATH=build/package build/venv/bin/pytest tests/engine

fuzz: build/venv.done ## try generated manifests and answers of remotes, five minutes each
	PMPP_FUZZ_SECONDS=300 build/venv/bin/pytest tests/server/test_fuzz.py

unit: build/venv.done ## run the tests that need no server
	build/venv/bin/pytest tests/unit

bench: build/venv.done ## measure pmpp beside its peers (QUICK=1: less work, fewer rounds)
	build/venv/bin/python bench/run.py $(if $(QUICK),--quick)

lint: build/venv.done ## check style and types of the Python code
	build/venv/bin/ruff check --config python/pyproject.toml python tests tools bench
	build/venv/bin/ruff format --check --config python/pyproject.toml python tests tools bench
	build/venv/bin/mypy --config-file python/pyproject.toml python/src tools/cluster.py

checkver: ## compare the version in all places that name it
	tools/checkver

endif
