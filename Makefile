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

PG_CONFIG ?= $(shell tools/pg-config)
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
# LIBPQ=wheel builds with psycopg's wheel, which contains libpq and OpenSSL, and LIBPQ=system with
# psycopg compiled on the libpq of the system. make install and later builds keep the choice.
LIBPQ := $(or $(LIBPQ),$(if $(wildcard build/psycopg-system.done),system,wheel))
# The word that has tools/prerequisites install what psycopg is compiled with.
TO_COMPILE = $(if $(filter system,$(LIBPQ)),libpq)
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

.DEFAULT_GOAL := all

# What the zip for PGXN lacks: tests, benchmark, packages.
DEVELOPMENT := $(wildcard tools/development.mk)

# ---- Also where nothing is installed yet ----

.PHONY: demo prerequisites help

demo: prerequisites ## install what is missing, build, and run a demonstration of pmpp (KEEP=1 leaves the server running)
	$(MAKE) all
	$(SUDO) $(MAKE) install PG_CONFIG="$$(command -v '$(PG_CONFIG)')" # the PATH of sudo is another one
	$(MAKE) run-demo

prerequisites: ## install what is missing for building (Debian)
	tools/prerequisites $(TO_COMPILE)

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile $(DEVELOPMENT) | expand -t 20

ifeq ($(wildcard $(PGXS)),)

.PHONY: all install uninstall installcheck clean
all install uninstall installcheck clean:
	@echo "pmpp needs PGXS, the files that extensions of PostgreSQL are built with (Debian: postgresql-client-<version>)." >&2
	@echo "If they are installed, name their pg_config: make PG_CONFIG=/path/to/pg_config" >&2
	@exit 1

else

include $(PGXS)

# ---- Building ----

# Without client/, which is for programs outside the server.
PYTHON_SOURCES := $(filter-out client/%,$(patsubst python/src/pmpp/%,%,$(wildcard python/src/pmpp/*.py python/src/pmpp/*/*.py))) py.typed
PACKAGE_DIR := $(pkglibdir)/pmpp/$(EXTVERSION)
# Compiled for where the files will be, and used without a look at the sources: nothing is written
# into the directory when the package is in use.
COMPILE = $(PYTHON) -m compileall -q --invalidation-mode unchecked-hash -s build/package -p '$(PACKAGE_DIR)'

all: build/package-$(LIBPQ).done ## build the extension and its Python package into build/

build:
	mkdir -p $@

build/pmpp--$(EXTVERSION).sql: $(sort $(wildcard sql/extension/*.sql)) pmpp.control | build
	cat $(filter %.sql,$^) | sed 's/@VERSION@/$(EXTVERSION)/g' > $@

# CONTRIBUTING.md explains how sql/upgrade/2.0.0.sql becomes pmpp--2.0.0--<version>.sql.
build/pmpp--%--$(EXTVERSION).sql: sql/upgrade/%.sql $(sort $(wildcard sql/extension/*.sql)) pmpp.control | build
	$(PYTHON) tools/upgrade-script $(filter %.sql,$^) | sed 's/@VERSION@/$(EXTVERSION)/g' > $@

# The interpreter is the one that PL/Python embeds, $(PYTHON) of PGXS, not the first on the PATH.
build/venv/bin/pip: build/venv.place
	$(if $(PYTHON),,$(error $(PG_CONFIG) is of a PostgreSQL that was built without Python, and so has no PL/Python))
	rm -rf build/venv
	$(PYTHON) -m venv build/venv

# A virtual environment works only in the directory that it was made in.
build/venv.place: FORCE | build
	@echo '$(CURDIR) $(PYTHON)' | cmp -s - $@ || echo '$(CURDIR) $(PYTHON)' > $@

FORCE:

# LIBPQ=system uses the libpq whose pg_config comes first on this PATH.
LIBPQ_PATH := $(if $(wildcard $(includedir)/libpq-fe.h),$(bindir):)$(PATH)
PSYCOPG := build/psycopg-$(LIBPQ).done
PIP_INSTALL = build/venv/bin/pip install --quiet --require-hashes --no-compile

# Both ways put psycopg into the same directory, so making one undoes the other. The file of the
# package has the way in its name too: PGXS makes every file .SECONDARY, and make does not miss a
# file of that kind while what is made from it is there.
$(PSYCOPG): python/libpq-$(LIBPQ).txt python/server-requirements.txt python/build-requirements.txt | build/venv/bin/pip
	$(MAKE) psycopg-$(LIBPQ)
	$(COMPILE) build/package
	touch $@

.PHONY: psycopg-wheel psycopg-system
psycopg-wheel: ## the part of all that fetches psycopg with its own libpq
	rm -rf build/package build/package-*.done build/psycopg-*.done
	$(PIP_INSTALL) --only-binary :all: --target build/package --requirement python/libpq-wheel.txt

# Without pip's cache, which may have psycopg compiled on another libpq.
psycopg-system: ## the part of all that compiles psycopg on the libpq of the system
	@PATH='$(LIBPQ_PATH)' tools/check-libpq
	rm -rf build/package build/package-*.done build/psycopg-*.done
	$(PIP_INSTALL) --only-binary :all: --requirement python/build-requirements.txt
	PATH='$(LIBPQ_PATH)' $(PIP_INSTALL) --no-cache-dir --no-build-isolation --target build/package --requirement python/libpq-system.txt

python/libpq-$(LIBPQ).txt:
	@echo "LIBPQ must be wheel or system, not $(LIBPQ)" >&2
	@exit 1

build/package-$(LIBPQ).done: $(PSYCOPG) $(addprefix python/src/pmpp/,$(PYTHON_SOURCES))
	rm -rf build/package/pmpp
	mkdir build/package/pmpp
	cd python/src/pmpp && cp --parents $(PYTHON_SOURCES) '$(CURDIR)/build/package/pmpp'
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

# ---- Demonstration ----

.PHONY: run-demo
run-demo: ## the part of demo after the installation
	PG_CONFIG='$(PG_CONFIG)' tools/demo $(if $(KEEP),--keep)

endif

include $(DEVELOPMENT)
