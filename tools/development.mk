# Targets for those who develop pmpp. The Makefile includes this file.

# ---- Tests ----

.PHONY: test prerequisites-tests run-tests run-other-tests test-on unit client packaging fuzz coverage server server-stop regress

# With QUICK=1, tests leave out what is slow.
NOT_SLOW := $(if $(QUICK),-m 'not slow')

# The tests use the same PostgreSQL as the targets.
run-tests run-other-tests unit client packaging deb fuzz: export PG_CONFIG := $(PG_CONFIG)

test: prerequisites-tests ## install what is missing, build, and run all checks and tests (QUICK=1: no slow ones)
	$(MAKE) all build/venv.done
	$(SUDO) $(MAKE) install PG_CONFIG="$$(command -v '$(PG_CONFIG)')"
	$(MAKE) run-tests

prerequisites-tests: ## install what is missing for the tests (Debian)
	tools/prerequisites $(TO_COMPILE) tests $(if $(QUICK),,deb)

run-tests: checkver unit $(if $(QUICK),,lint) ## the part of test after the installation
	tools/cluster.py '$(PG_CONFIG)' -- $(MAKE) installcheck
	build/venv/bin/pytest $(NOT_SLOW) tests/server tests/engine tests/client
	build/venv/bin/pytest $(NOT_SLOW) tests/packaging
	$(if $(QUICK),,$(MAKE) run-other-tests)

run-other-tests: build/other-servers.done ## the part of run-tests with remote servers of other kinds, and the Debian package
	build/venv/bin/pytest tests/reach
	if test -e /usr/lib/postgresql/$(MAJORVERSION)/bin/pg_config && command -v dpkg >/dev/null; then $(MAKE) deb; fi

test-on: ## run test on other systems, in a root of each (SUITE=one of tools/hosts; QUICK=1 as for test)
	tools/test-on $(if $(QUICK),--quick) $(SUITE)

unit: build/venv.done ## run the tests that need no server
	build/venv/bin/pytest tests/unit

client: CLIENT_PYTHON ?= $(PYTHON)
client: ## run the tests of ParallelConnection (CLIENT_PYTHON=another Python than PL/Python's)
	'$(CLIENT_PYTHON)' -m venv --clear build/client
	build/client/bin/pip install --quiet --editable 'python[test]'
	build/client/bin/pytest tests/client

packaging: all build/venv.done ## run the tests of distribution, installation, dump and update
	build/venv/bin/pytest tests/packaging

server: all build/venv.done ## install, and start a server that tests use until make server-stop
	$(SUDO) $(MAKE) install PG_CONFIG="$$(command -v '$(PG_CONFIG)')"
	tools/cluster.py --start '$(PG_CONFIG)'

server-stop: ## remove that server
	tools/cluster.py --stop

regress: ## run the regression tests (REGRESS="setup errors": only these) on a server of the tests
	tools/cluster.py --kept '$(PG_CONFIG)' -- $(MAKE) installcheck

coverage: all build/venv.done ## measure which lines of the Python package the tests run, in and out of the server
	build/venv/bin/python tools/measure_coverage.py '$(PG_CONFIG)'

fuzz: build/venv.done ## try generated manifests and answers of remote servers, five minutes each
	PMPP_FUZZ_SECONDS=300 build/venv/bin/pytest tests/server/test_fuzz.py

# ---- Checks ----

.PHONY: lint checkver

SHELL_SCRIPTS := .ci/run tools/build-deb tools/check-libpq tools/demo tools/pg-config tools/prerequisites
PYTHON_SCRIPTS := tools/*.py tools/checkver tools/test-on tools/upgrade-script

# PS005: functions that read the caller's values do so under the caller's search_path; they name all
# objects by their schemas instead. pgspot does not know variables of composite types in PL/pgSQL.
PGSPOT_OPTIONS := --no-plpgsql --ignore PS005 --ignore-lang plpython3u

lint: build/venv.done build/pmpp--$(EXTVERSION).sql ## check style, types, spelling, and the safety of the SQL
	build/venv/bin/ruff check --config python/pyproject.toml python tests bench $(PYTHON_SCRIPTS)
	build/venv/bin/ruff format --check --config python/pyproject.toml python tests bench $(PYTHON_SCRIPTS)
	MYPYPATH=python/src:tools:tests:bench build/venv/bin/mypy --config-file python/pyproject.toml python/src tools/*.py tests bench
	build/venv/bin/codespell --skip '*.pyc,*.egg-info' *.md Makefile META.json .github bench debian doc python sql tests tools
	build/venv/bin/shellcheck $(SHELL_SCRIPTS)
	PATH="$(CURDIR)/build/venv/bin:$$PATH" actionlint .github/workflows/*.yml
	build/venv/bin/pgspot $(PGSPOT_OPTIONS) build/pmpp--$(EXTVERSION).sql

checkver: ## compare version, licence and summary in all places that name them
	tools/checkver

# ---- Benchmark ----

.PHONY: bench

bench: ## measure pmpp beside its peers (QUICK=1: within two minutes; DOC=1: into doc/performance.md)
	tools/prerequisites $(TO_COMPILE) bench
	$(MAKE) all build/bench.done
	$(SUDO) $(MAKE) install PG_CONFIG="$$(command -v '$(PG_CONFIG)')"
	PG_CONFIG='$(PG_CONFIG)' build/venv/bin/python bench/run.py $(if $(QUICK),--quick) $(if $(DOC),--doc)

# ---- Packages ----

.PHONY: dist deb

dist: checkver | build ## make the zip for PGXN of what is committed, in build/
	@git -c safe.directory='*' diff --quiet HEAD || echo "warning: the zip lacks what is not committed" >&2
	rm -f build/pmpp-*.zip
	git -c safe.directory='*' archive --format=zip --prefix='pmpp-$(EXTVERSION)/' --output='build/pmpp-$(EXTVERSION).zip' HEAD

deb: build/venv.done ## make a Debian package of what is committed, in build/, and test it (installs debhelper)
	tools/prerequisites deb
	rm -f build/*.deb
	tools/build-deb '$(EXTVERSION)' '$(MAJORVERSION)'
	build/venv/bin/pytest tests/deb

# ---- What these need ----

.PHONY: dev

dev: build/venv.done ## make a development environment, build/venv

# pgxnclient comes without pip's cache: its wheel names the Python it was built with, and that may be
# of a directory that is gone.
build/venv.done: python/pyproject.toml $(wildcard python/*.txt) build/venv.place | build/venv/bin/pip
	$(PIP_INSTALL) --only-binary :all: --requirement python/libpq-wheel.txt
	build/venv/bin/pip install --quiet --no-cache-dir pgxnclient
	build/venv/bin/pip install --quiet --editable 'python[test]'
	touch $@

# What else the benchmark compares with.
build/bench.done: bench/requirements.txt build/venv.done
	build/venv/bin/pip install --quiet --requirement $<
	touch $@

# Servers of other versions and kinds, for tests/reach. Their own script restores the symbolic links
# that npm cannot carry.
build/other-servers.done: tests/reach/package.json tests/reach/package-lock.json build/venv.done
	mkdir -p build/other-servers
	cp $(filter %.json,$^) build/other-servers
	PATH="$(CURDIR)/build/venv/bin:$$PATH" npm ci --prefix build/other-servers --legacy-peer-deps --ignore-scripts --no-audit --no-fund
	for server in build/other-servers/node_modules/postgres-*; do \
	    (cd $$server && '$(CURDIR)/build/venv/bin/node' scripts/hydrate-symlinks.js) || exit 1; \
	done
	touch $@
