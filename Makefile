# Everything a developer types. Needs python3 (3.11 or later) and make; the rest is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# No client may look for the ambient credentials of a cloud machine, and nothing may leave loopback.
OFFLINE := GCE_METADATA_HOST=127.0.0.1:9 NO_GCE_CHECK=true
# Where nothing may be written beside the sources, the tests and what they start would be compiled again each time.
OFFLINE += $(if $(PYTHONDONTWRITEBYTECODE),PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(CURDIR)/.pytest_cache/compiled)
# Debian splits ensurepip off into python3-venv; the system's pip, if there is one, can stand in.
WITHOUT_ENSUREPIP = { $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } \
	|| { echo "Neither 'venv' nor pip works in $(PYTHON); on Debian: apt-get install python3-venv" >&2; exit 1; }

# Tests wait almost as long as they compute: for disks, leases and servers. Two processes a core keep both cores busy.
AT_ONCE ?= 4

.DEFAULT_GOAL := help
.PHONY: help setup run test test-quick test-floors coverage test-aws test-browser test-chart test-kubernetes charts docs lint format proto bench clean

# Parts of the test suite that need more than Python, make and the group `test`: `make test-ROOM` installs that and runs
# them; those of lint are run by lint.
ROOMS := aws browser chart deploy floors kubernetes lint
# Minutes that each has on two quiet cores, once its servers are built; `.ci/run` says what took more CPU than that.
BUDGETS := lint=2 docs=1 test=8 test-quick=4 test-floors=4 test-chart=4 test-kubernetes=12 test-aws=3 test-browser=6

# A cross-section of every room, for the lowest versions. It leaves out what takes minutes, each store in a second set-up,
# and what no version changes: planted bugs, kill -9, random lives, faults at each request, the rules for files.
SLOW := $(addprefix tests/,planted kill9 model backends/redis/test_kill9.py backends/redis/test_failover.py \
	backends/gcs/test_faults.py backends/gcs/test_stored_settings.py backends/gcs/test_metadata.py \
	backends/sqlite/test_small_volume.py cli/test_output.py cli/test_completion.py \
	repository/test_layout.py repository/test_paths.py repository/test_wheel.py)
QUICK := $(addprefix --ignore=,$(addprefix tests/,$(ROOMS)) $(SLOW))
SECOND := sentinel or cluster or exact or failover

# What of it another Python may change is less: asyncio, typing, ssl, sqlite3, signals, exceptions. Flags and tables, the
# shape of requests, documents and the tools of the tests are the same on each; buckets have tests of their own.
ALIKE := $(addprefix tests/,benchmarks fakes backends/gcs/test_costs.py backends/gcs/test_go.py cli/test_backup.py \
	cli/test_documents.py cli/test_listing.py cli/test_looking.py cli/test_progress.py cli/test_settings.py \
	repository/test_ci.py repository/test_make.py repository/test_sdist.py repository/test_site.py \
	repository/test_start.py support/test_processes.py)

# The lowest versions have an environment of their own. What they call themselves was not deprecated in their days.
FLOORS := $(VENV)-floors
GENERATOR := $(VENV)-generator
# What no distribution may change stays away from them: memory, SQLite, the dispatcher on them, rules, documents.
FOREIGN ?= $(addprefix tests/,access backends/gcs backends/redis cli conformance dispatcher/relay dispatcher/targets \
	dispatcher/test_error_events.py dispatcher/test_tracing.py floors programs routing rpc sources sqs telemetry web)
OWN_STORES := test_conformance and (memory or sqlite)
OF_OLD_ONES := -W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning

help:           ## list these targets
	@sed -n 's/^\([a-z-]*\): .*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

setup: $(VENV)/installed ## create .venv with everything in it (quick when nothing changed)

# An environment of another Python than PYTHON= asks for is made anew; without PYTHON= the one that is there will do.
ifneq ($(origin PYTHON),file)
ifneq ($(shell { $(BIN)/python -V; } 2>&1),$(shell { $(PYTHON) -V; } 2>&1))
OTHER_PYTHON := $(wildcard $(VENV))
.PHONY: $(VENV)/installed
endif
endif

# The stamp is touched last: an install that was cut short is done again.
$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Python 3.11 or later is needed; say which with PYTHON=python3.x' >&2; exit 1; }
	$(if $(OTHER_PYTHON),rm -rf $(VENV) # it has another Python than $(PYTHON))
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || $(WITHOUT_ENSUREPIP)
	$(PIP_INSTALL) 'pip>=25.1' # the first that knows groups
	$(PIP_INSTALL) --group test --editable '.[all]'
	@touch $@

run: setup      ## the main example: folders of manifests, reconciled
	$(BIN)/python -m examples.manifests

test: setup     ## the test suite, for real; chart and deployment have rooms of their own
	$(OFFLINE) $(BIN)/python -m pytest -n $(AT_ONCE) tests/ $(addprefix --ignore=tests/,$(ROOMS))

test-quick: setup ## a cross-section of it in 4 minutes, for every other Python
	$(OFFLINE) $(BIN)/python -m pytest -n $(AT_ONCE) tests/ $(QUICK) $(addprefix --ignore=,$(ALIKE)) \
		-k 'not ($(SECOND) or (test_conformance and gcs))'

test-floors: $(FLOORS)/installed ## what stands on others, on the lowest version of each, beside FastAPI and Django
	$(OFFLINE) $(FLOORS)/bin/python -m pytest -n $(AT_ONCE) $(FOREIGN) $(filter-out --ignore=tests/floors,$(QUICK)) \
		-k 'not ($(SECOND) or ($(OWN_STORES)))' $(OF_OLD_ONES)

coverage: $(VENV)/installed-coverage ## lines and branches that the tests reach, in the programs that they start too
	$(OFFLINE) $(BIN)/python -m coverage run -m pytest -n 2 tests/ $(addprefix --ignore=tests/,$(ROOMS))
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

test-chart: $(VENV)/installed-chart ## the Helm chart, with Helm's own engine (a wheel of 244 MB)
	$(OFFLINE) $(BIN)/python -m pytest -n 2 tests/chart tests/deploy

# A network, mounts and processes of its own: Pods get addresses in it, and nothing of it outlives the tests.
NAMESPACES = unshare --net --mount --pid --ipc --uts --fork --kill-child --mount-proc env WORKQUEUE_TEST_NAMESPACES=made
test-kubernetes: $(VENV)/installed-chart ## the chart on a real API server, built once (needs Go, Linux and root)
	@test "$$(id -u)" = 0 && command -v unshare ip >/dev/null \
		|| { echo 'test-kubernetes makes network namespaces: it needs Linux, root, unshare and ip (iproute2)' >&2; exit 1; }
	$(BIN)/python -m tests.kubernetes.binaries
	$(BIN)/python -m tests.kubernetes.crds
	$(NAMESPACES) $(OFFLINE) $(BIN)/python -m pytest -p no:xdist tests/kubernetes

test-aws: $(VENV)/installed-aws ## what talks to AWS, against moto's server (some 190 MB)
	$(OFFLINE) $(BIN)/python -m pytest -n 2 tests/aws

# A Chromium that is there is used; on Debian one is installed, and said so.
test-browser: $(VENV)/installed-browser ## the console in a real Chromium (on Debian apt-get installs it, some 300 MB)
	@command -v chromium >/dev/null || { echo 'test-browser: installing chromium with apt-get' >&2; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >&2; } \
		|| { echo 'test-browser needs a chromium on PATH' >&2; exit 1; }
	$(OFFLINE) $(BIN)/python -m pytest -n 2 tests/browser

$(VENV)/installed-%: $(VENV)/installed
	$(PIP_INSTALL) --group $*
	@touch $@

$(FLOORS)/installed: pyproject.toml tests/support/floors.py $(VENV)/installed
	rm -rf $(FLOORS)
	$(BIN)/python -m venv --without-pip $(FLOORS)
	$(BIN)/python -m tests.support.floors > $(FLOORS)/constraints.txt
	$(BIN)/python -m pip --python $(FLOORS)/bin/python install --quiet --disable-pip-version-check \
		--constraint $(FLOORS)/constraints.txt --group floors --editable '.[all]'
	@touch $@

# The generator is old, so that what it makes asks for no new gRPC; it fits beside nothing else.
$(GENERATOR)/installed: pyproject.toml $(VENV)/installed
	rm -rf $(GENERATOR)
	$(BIN)/python -m venv --without-pip $(GENERATOR)
	$(BIN)/python -m pip --python $(GENERATOR)/bin/python install --quiet --disable-pip-version-check --group generator
	@touch $@

charts: setup   ## regenerate the chart's schema and README, and deploy/prometheus/alerts.yaml
	$(BIN)/python -m charts

docs: $(VENV)/installed-docs ## the docs site, in build/docs/site; a link that leads nowhere fails it
	$(BIN)/python docs/site/build.py

lint: $(VENV)/installed-lint $(GENERATOR)/installed ## ruff, mypy, layers; the committed gRPC code is what proto/ yields
	$(GENERATOR)/bin/python proto/generate.py --check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/lint-imports
	$(OFFLINE) $(BIN)/python -m pytest -p no:xdist -q tests/lint

format: $(VENV)/installed-lint ## let ruff lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(GENERATOR)/installed ## regenerate workqueue/rpc/pb from proto/, with the oldest generator
	$(GENERATOR)/bin/python proto/generate.py

bench: setup    ## the benchmarks, with their ratios
	$(OFFLINE) $(BIN)/python -m benchmarks

clean:          ## remove .venv, caches and build output
	rm -rf .coverage* .venv* build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
