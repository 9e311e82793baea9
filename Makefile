# pmpp. "make help" lists the targets.
#
# make builds into build/, make install only copies. The Python package, psycopg and what it needs
# are installed together in a directory of their own, $(pkglibdir)/pmpp/<version>/.

EXTENSION := pmpp
EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" pmpp.control)

UPGRADES := $(patsubst sql/upgrade/%.sql,build/pmpp--%--$(EXTVERSION).sql,$(wildcard sql/upgrade/*.sql))
DATA_built = build/pmpp--$(EXTVERSION).sql $(UPGRADES)
REGRESS = setup $(filter-out setup,$(sort $(patsubst sql/%.sql,%,$(wildcard sql/*.sql))))
REGRESS_OPTS = --outputdir=build/regress
EXTRA_CLEAN = build python/build $(wildcard python/src/*.egg-info)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

.DEFAULT_GOAL := all

# ---- Two commands that do everything, also where nothing is installed yet ----

.PHONY: demo test bench prerequisites help

demo: prerequisites ## install what is missing, build, and show pmpp at work (KEEP=1 leaves the server running)
	$(MAKE) all
	$(SUDO) $(MAKE) install PG_CONFIG='$(PG_CONFIG)'
	$(MAKE) run-demo

test: ## install what is missing, build, and run all checks and tests
	tools/prerequisites tests
	$(MAKE) all build/venv.done
	$(SUDO) $(MAKE) install PG_CONFIG='$(PG_CONFIG)'
	$(MAKE) run-tests

bench: ## measure pmpp beside its peers (QUICK=1: within two minutes; DOC=1: into doc/performance.md)
	tools/prerequisites bench
	$(MAKE) all build/bench.done
	$(SUDO) $(MAKE) install PG_CONFIG='$(PG_CONFIG)'
	PG_CONFIG='$(PG_CONFIG)' build/venv/bin/python bench/run.py $(if $(QUICK),--quick) $(if $(DOC),--doc)

prerequisites: ## install what is missing for building (Debian)
	tools/prerequisites

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 20

ifeq ($(wildcard $(PGXS)),)

.PHONY: all install uninstall installcheck clean
all install uninstall installcheck clean:
	@echo "pmpp needs PGXS, the files that extensions of PostgreSQL are built with (Debian: postgresql-client-15)." >&2
	@echo "If they are installed, tell where: make PG_CONFIG=/path/to/pg_config" >&2
	@exit 1

else

include $(PGXS)

# ---- Building ----

# Without client/, which is for programs outside the server.
PYTHON_SOURCES := $(wildcard python/src/pmpp/*.py) python/src/pmpp/py.typed
PACKAGE_DIR := $(pkglibdir)/pmpp/$(EXTVERSION)
# Compiled for where the files will be, and used without a look at the sources: nothing is written
# into the directory when the package is in use.
COMPILE = $(PYTHON) -m compileall -q --invalidation-mode unchecked-hash -s build/package -p '$(PACKAGE_DIR)'

all: build/package.done ## build the extension and its Python package into build/

build:
	mkdir -p $@

build/pmpp--$(EXTVERSION).sql: $(sort $(wildcard sql/extension/*.sql)) pmpp.control | build
	cat $(filter %.sql,$^) | sed 's/@VERSION@/$(EXTVERSION)/g' > $@

# How sql/upgrade/2.0.0.sql, for example, becomes pmpp--2.0.0--<version>.sql is told in CONTRIBUTING.md.
build/pmpp--%--$(EXTVERSION).sql: sql/upgrade/%.sql $(sort $(wildcard sql/extension/*.sql)) pmpp.control | build
	$(PYTHON) tools/upgrade-script $(filter %.sql,$^) | sed 's/@VERSION@/$(EXTVERSION)/g' > $@

# The interpreter is the one that PL/Python embeds, $(PYTHON) of PGXS, not the first on the PATH.
build/venv/bin/pip: | build
	$(PYTHON) -m venv build/venv

# psycopg[c] is compiled here, on the libpq that the server uses too: about a minute, once. It asks
# the first pg_config on the PATH where that is. pip's cache may have one compiled on another libpq.
LIBPQ_PATH := $(if $(wildcard $(includedir)/libpq-fe.h),$(bindir):)$(PATH)

build/psycopg.done: python/server-requirements.txt | build/venv/bin/pip
	rm -rf build/package
	PATH='$(LIBPQ_PATH)' build/venv/bin/pip install --quiet --no-cache-dir --no-compile --target build/package --requirement $<
	$(COMPILE) build/package
	touch $@

build/package.done: build/psycopg.done $(PYTHON_SOURCES)
	rm -rf build/package/pmpp
	mkdir build/package/pmpp
	cp $(PYTHON_SOURCES) build/package/pmpp
	$(COMPILE) build/package/pmpp
	touch $@

# ---- Installing ----

install: install-package ## copy what was built to where PostgreSQL looks for it (below DESTDIR)
uninstall: uninstall-package ## remove what make install copied

.PHONY: install-package uninstall-package
install-package: all ## the part of install that copies the Python package
	rm -rf '$(DESTDIR)$(PACKAGE_DIR)'
	$(MKDIR_P) '$(DESTDIR)$(PACKAGE_DIR)'
	cp -R build/package/. '$(DESTDIR)$(PACKAGE_DIR)'
	chmod -R u=rwX,go=rX '$(DESTDIR)$(dir $(PACKAGE_DIR))'

# The directory above stays if it has another version of pmpp.
uninstall-package: ## the part of uninstall that removes the Python package
	rm -rf '$(DESTDIR)$(PACKAGE_DIR)'
	rmdir '$(DESTDIR)$(dir $(PACKAGE_DIR))' 2>/dev/null || true

installcheck: | build ## run the regression tests (sql/, expected/) on the server that PGHOST and PGPORT name

clean: ## remove what was built

# ---- Packages ----

.PHONY: dist deb

dist: checkver | build ## make the zip for PGXN of what is committed, in build/
	@git -c safe.directory='*' diff --quiet HEAD || echo "warning: the zip lacks what is not committed" >&2
	rm -f build/pmpp-*.zip
	git -c safe.directory='*' archive --format=zip --prefix='pmpp-$(EXTVERSION)/' --output='build/pmpp-$(EXTVERSION).zip' HEAD

deb: build/venv.done ## make a Debian package of what is committed, in build/, and test it (installs debhelper)
	tools/prerequisites deb
	rm -f build/*.deb
	tools/build-deb '$(EXTVERSION)'
	build/venv/bin/pytest tests/deb

# ---- Demonstration and tests ----

.PHONY: run-demo run-tests dev lint checkver unit packaging coverage fuzz

run-demo: ## the part of demo after the installation
	PG_CONFIG='$(PG_CONFIG)' tools/demo $(if $(KEEP),--keep)

# psycopg[binary], whose libpq is newer than the server's, and test tools.
dev: build/venv.done ## make a development environment, build/venv

# pgxnclient comes without pip's cache: its wheel names the Python it was built with, and that may be
# of a directory that is gone.
build/venv.done: python/pyproject.toml python/test-requirements.txt | build/venv/bin/pip
	build/venv/bin/pip install --quiet --no-cache-dir pgxnclient
	build/venv/bin/pip install --quiet --editable 'python[test]'
	touch $@

# What else the benchmark compares with.
build/bench.done: bench/requirements.txt build/venv.done
	build/venv/bin/pip install --quiet --requirement $<
	touch $@

# Servers of other versions and kinds, for tests/reach. Their own script restores the symbolic links
# that npm cannot carry.
build/remotes.done: tests/reach/package.json tests/reach/package-lock.json build/venv.done
	mkdir -p build/remotes
	cp $(filter %.json,$^) build/remotes
	PATH="$(CURDIR)/build/venv/bin:$$PATH" npm ci --prefix build/remotes --legacy-peer-deps --ignore-scripts --no-audit --no-fund
	for server in build/remotes/node_modules/postgres-*; do \
	    (cd $$server && '$(CURDIR)/build/venv/bin/node' scripts/hydrate-symlinks.js) || exit 1; \
	done
	touch $@

run-tests: checkver lint unit build/remotes.done ## the part of test after the installation
	tools/cluster.py $(PG_CONFIG) -- $(MAKE) installcheck
	build/venv/bin/pytest tests/server tests/engine tests/client
	build/venv/bin/pytest tests/reach
	PYTHONPATH=build/package build/venv/bin/pytest tests/engine
	build/venv/bin/pytest tests/packaging
	if command -v dpkg >/dev/null; then $(MAKE) deb; fi

fuzz: build/venv.done ## try generated manifests and answers of remotes, five minutes each
	PMPP_FUZZ_SECONDS=300 build/venv/bin/pytest tests/server/test_fuzz.py

unit: build/venv.done ## run the tests that need no server
	build/venv/bin/pytest tests/unit

packaging: all build/venv.done ## run the tests of distribution, installation, dump and update
	build/venv/bin/pytest tests/packaging

coverage: all build/venv.done ## measure which lines of the Python package the tests run, in and out of the server
	build/venv/bin/python tools/measure_coverage.py '$(PG_CONFIG)'

SHELL_SCRIPTS := .ci/run tools/build-deb tools/demo tools/prerequisites
PYTHON_SCRIPTS := tools/*.py tools/checkver tools/upgrade-script

# PS005: functions that read the caller's values do so under the caller's search_path; they name all
# objects by their schemas instead. pgspot does not know variables of composite types in PL/pgSQL.
PGSPOT_OPTIONS := --no-plpgsql --ignore PS005 --ignore-lang plpython3u

lint: build/venv.done build/pmpp--$(EXTVERSION).sql ## check style, types, spelling, and the safety of the SQL
	build/venv/bin/ruff check --config python/pyproject.toml python tests bench $(PYTHON_SCRIPTS)
	build/venv/bin/ruff format --check --config python/pyproject.toml python tests bench $(PYTHON_SCRIPTS)
	build/venv/bin/mypy --config-file python/pyproject.toml python/src tools/*.py
	build/venv/bin/codespell --skip '*.pyc,*.egg-info' *.md Makefile META.json .github bench debian doc python sql tests tools
	build/venv/bin/shellcheck $(SHELL_SCRIPTS)
	build/venv/bin/pgspot $(PGSPOT_OPTIONS) build/pmpp--$(EXTVERSION).sql

checkver: ## compare version, licence and summary in all places that name them
	tools/checkver

endif
