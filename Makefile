# What people type. Each target does one thing; the work stands in tools/ and playbooks/.
# INVENTORY=prod makes any of them mean inventory/prod instead of the local VM.

INVENTORY ?= local
RELEASE ?= trixie
PYTHON ?= python3

# A restore brings the inventory along.
ifeq ($(if $(filter restore,$(MAKECMDGOALS)),restored,$(wildcard inventory/$(INVENTORY))),)
$(error There is no inventory/$(INVENTORY); there are: $(notdir $(wildcard inventory/*)). To make one: cp -r inventory/example inventory/$(INVENTORY))
endif

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
# Where an inventory has its secrets elsewhere, it is asked where: that takes a second. Where it can't say, it is none of the folders.
SECRETS_ELSEWHERE := $(shell grep -rlsE '^[[:space:]]*fortress_secrets_dir:' --exclude-dir='*secrets*' inventory/$(INVENTORY))
SECRETS_UNKNOWN := build/unknown-secrets
SECRETS := $(or $(if $(SECRETS_ELSEWHERE),$(shell LC_ALL=C.UTF-8 .venv/bin/python -m tools.remote --inventory inventory/$(INVENTORY) \
    --variable fortress_secrets_dir || echo $(SECRETS_UNKNOWN))),inventory/$(INVENTORY)/secrets)
ENV_FILE := $(SECRETS)/fortress.env
PLAYBOOK := $(BIN)/ansible-playbook -i inventory/$(INVENTORY)
LOCALVM := $(SUDO) $(PYTHON) tools/localvm
VM_NAME := fortress
VM_ADDRESS := 172.30.0.10
SSH_KEY := inventory/local/secrets/ssh/id_ed25519
# A locale that this machine does not have would end Ansible before it begins.
export LC_ALL := C.UTF-8
# Ansible and Molecule start programs of the virtual environment by name.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Ansible and the tests import thousands of modules. Where Python may not keep what it has compiled, each run compiles them once more: of Ansible
# alone that is a second.
unexport PYTHONDONTWRITEBYTECODE

##@ Run it

.PHONY: up
up: vm converge predict links  ## Boot a local VM, provision it, prove a prediction; a second run changes nothing

.PHONY: down
down:  ## Remove the local VM, its disk and its network
	@$(LOCALVM) down $(VM_NAME)

.PHONY: start-project stop-project
start-project: up  ## The same as up
stop-project:  ## Power the local VM off and keep its disk; start-project brings it back
	@$(LOCALVM) stop $(VM_NAME)

.PHONY: vm
vm: control
	@$(LOCALVM) setup
	@$(MAKE) $(SSH_KEY)
	@$(LOCALVM) up $(VM_NAME) --address $(VM_ADDRESS) --release $(RELEASE) \
	    --authorized-key $(SSH_KEY).pub --known-hosts inventory/local/secrets/ssh/known_hosts

.PHONY: converge
converge: control  ## Bring every host of the inventory to what site.yml says
	@$(PLAYBOOK) site.yml

.PHONY: verify
verify: control  ## Check a running site from the inside: health, targets, Grafana's panels
	@$(PLAYBOOK) playbooks/verify.yml

.PHONY: remove
remove: control  ## Take the site off its hosts, or off one: HOST=; after `make backup`. SITE=its domain says yes
	@$(PLAYBOOK) playbooks/remove.yml $(if $(HOST),--limit '$(HOST)') $(if $(SITE),-e remove_site='$(SITE)') $(if $(CHECK),--check)

##@ Release

DEPLOY_OPTIONS = $(if $(MODEL),-e fortress_model_name='$(MODEL)') $(if $(MODEL_VERSION),-e fortress_model_version='$(MODEL_VERSION)') \
    $(if $(APP),-e iris_api_revision='$(APP)') $(if $(MODEL)$(MODEL_VERSION)$(APP),,-e iris_api_is_inventory=true)

.PHONY: deploy
deploy: control  ## One instance after the other; MODEL= MODEL_VERSION= APP=git-revision choose what
	@$(PLAYBOOK) playbooks/deploy.yml $(DEPLOY_OPTIONS)

.PHONY: rollback
rollback: control  ## To what went through before; PART=app or model, TO=one of the history
	@$(PLAYBOOK) playbooks/rollback.yml $(if $(PART),-e rollback_part=$(PART)) $(if $(TO),-e rollback_to=$(TO))

.PHONY: history
history: control  ## Every deployment, rollback and abort
	@$(ON_API) 'iris-deploy history'

.PHONY: hold
hold: control  ## Lock deployments and rollbacks: make hold WHY="the fair is on"
	@test -n "$${WHY:-}" || { echo 'Why? Whoever wants to deploy reads it: make hold WHY="the fair is on"' >&2; exit 1; }
	@$(ON_API) "$$($(PYTHON) -c '$(HOLD)' '$(shell id -un)@$(shell uname -n)')"

# As JSON, and unsafe: neither a shell nor Ansible takes a quote or a brace of the reason for its own.
HOLD = import json, os, sys; why = {"__ansible_unsafe": os.environ["WHY"]}; \
    print(json.dumps({"argv": ["iris-deploy", "hold", "--who", sys.argv[1], "--", why]}))

.PHONY: unlock
unlock: control  ## Allow deployments again
	@$(ON_API) 'iris-deploy unlock --who $(shell id -un)@$(shell uname -n)'

.PHONY: silence
silence: control  ## Keep alerts back for a while: ALERT=Name or HOST=name, FOR=2h WHY="..."; END=id ends it; alone: what is silent
	@$(BIN)/python -m tools.silence --inventory inventory/$(INVENTORY) $(if $(ALERT),--alert '$(ALERT)') $(if $(HOST),--host '$(HOST)') \
	    $(if $(FOR),--for '$(FOR)') $(if $(WHY),--why "$$WHY") $(if $(END),--end '$(END)')

.PHONY: notify
notify: control  ## Send a test notification to whoever is told of alerts, and say who got it: SEVERITY=warning HOST=name
	@$(BIN)/python -m tools.notify --inventory inventory/$(INVENTORY) $(if $(SEVERITY),--severity '$(SEVERITY)') $(if $(HOST),--host '$(HOST)')

ON_API = $(BIN)/ansible -i inventory/$(INVENTORY) api --become -m ansible.builtin.command -a

##@ Use it

.PHONY: env
env: $(ENV_FILE)  ## Settings for curl: eval "$$(make -s env)"
	@cat $(ENV_FILE)

.PHONY: links
links: $(ENV_FILE)  ## Every address, and where the credentials are
	@tools/tour links $(ENV_FILE)

.PHONY: example
example: $(ENV_FILE)  ## A request that the deployed model answers: curl -d "$$(make -s example)"
	@tools/tour example $(ENV_FILE)

.PHONY: predict
predict: $(ENV_FILE)  ## One prediction through the gateway
	@tools/tour predict $(ENV_FILE)

.PHONY: flood
flood: $(ENV_FILE)  ## 20 rapid requests: 200s, then 503s
	@tools/tour flood $(ENV_FILE)

.PHONY: balance
balance: $(ENV_FILE)  ## How 30 requests spread over the instances
	@tools/tour balance $(ENV_FILE)

.PHONY: status
status: control  ## One screen: units, release, model, certificate, alerts, requests, errors, p99; JSON=1 for programs
	@$(BIN)/python -m tools.status --inventory inventory/$(INVENTORY) $(if $(JSON),--json)

.PHONY: logs
logs: control  ## Follow gateways and instances of every host, or of one: HOST=
	@$(REMOTE) --hosts $(or $(HOST),all) -- $(FOLLOW)

# Both at once; a host that is no gateway has no access log.
FOLLOW = sudo journalctl --follow --lines=50 --unit="'iris-api@*'" --unit=nginx --unit="'prometheus*'" --unit=grafana-server \
    "& if [ -d /var/log/nginx ]; then sudo tail --follow=name --retry --quiet --lines=20 /var/log/nginx/access.log; fi; wait"

.PHONY: trace
trace: control  ## One request through gateway and instances, by its X-Request-ID: ID=
	@test -n "$(ID)" || { echo "Which request? make trace ID=...: X-Request-ID of an answer, request_id of an error" >&2; exit 1; }
	@$(BIN)/python -m tools.trace --inventory inventory/$(INVENTORY) '$(ID)'

.PHONY: top
top: control  ## Who asks the gateways, is limited or has a wrong password, by their logs; LINES=2000 HOST=
	@$(BIN)/python -m tools.top --inventory inventory/$(INVENTORY) $(if $(HOST),--hosts '$(HOST)') $(if $(LINES),--lines '$(LINES)')

.PHONY: ssh
ssh: control  ## A shell on the host, or on one of several: HOST=
	@$(REMOTE) --hosts $(or $(HOST),all)

REMOTE := $(BIN)/python -m tools.remote --inventory inventory/$(INVENTORY)

$(SECRETS_UNKNOWN)/fortress.env:
	@echo "Where inventory/$(INVENTORY) has its secrets can't be found out: what is printed above says why." >&2; exit 1

$(filter-out $(SECRETS_UNKNOWN)/%,$(ENV_FILE)):
	@echo "$@ is not there yet: it is written at the end of \`make up\` (or \`make converge INVENTORY=$(INVENTORY)\`)." >&2; exit 1

$(SSH_KEY):
	@mkdir -p -m 0700 $(dir $@)
	@ssh-keygen -q -t ed25519 -N '' -C fortress-local -f $@

##@ Keep it

.PHONY: backup
backup: control  ## All that only this site has, in an archive; TO=folder, RECIPIENTS=file of age's to encrypt it
	@$(PLAYBOOK) playbooks/backup.yml $(if $(TO),-e '{"backup_to": "$(TO)"}') $(if $(RECIPIENTS),-e '{"backup_recipients": "$(RECIPIENTS)"}')

# Without INVENTORY= it gets the name that it had.
.PHONY: restore
restore: control  ## A backup to fresh hosts: FROM=archive; KEY= where it is encrypted, HOST=one of several, USE=here or backup
	@test -n "$(FROM)" || { echo "From which archive? make restore FROM=~/fortress-backups/fortress-prod-....tar.gz" >&2; exit 1; }
	@name=$$($(BIN)/python -m tools.backup unpack '$(FROM)' $(if $(filter file,$(origin INVENTORY)),,--inventory '$(INVENTORY)') \
	    $(if $(USE),--use '$(USE)') $(if $(KEY),--key '$(KEY)')) && \
	{ test "$$name" != local || make vm INVENTORY=local; } && \
	$(BIN)/ansible-playbook -i "inventory/$$name" playbooks/restore.yml $(if $(HOST),-e restore_hosts='$(HOST)')

##@ Rotate it

.PHONY: rotate-credentials
rotate-credentials: control  ## New passwords, the old ones work on for a week; FOR=iris for one user
	@$(PLAYBOOK) playbooks/rotate-credentials.yml $(if $(FOR),--extra-vars rotate_user=$(FOR))

.PHONY: retire-credentials
retire-credentials: control  ## End the old passwords now; FOR=iris for one user
	@$(PLAYBOOK) playbooks/retire-credentials.yml $(if $(FOR),--extra-vars retire_user=$(FOR))

.PHONY: renew-certificates
renew-certificates: control  ## A new certificate and key for each gateway, now
	@$(PLAYBOOK) playbooks/renew-certificates.yml

##@ Change it

.PHONY: model
model: tests-venv  ## Train the shipped models anew, in models/
	@$(BIN)/python models/train.py

.PHONY: dashboards
dashboards: tests-venv  ## Make Grafana's dashboards and Prometheus' console pages anew
	@$(BIN)/python -m tools.dashboards

.PHONY: rules
rules: tests-venv  ## Make Prometheus' rules anew
	@$(BIN)/python -m tools.rules

.PHONY: docs
docs: tests-venv  ## Build docs/ as a site in build/docs; a warning is an error
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --nitpicky --jobs=auto docs build/docs

.PHONY: docs-reference
docs-reference: tests-venv  ## Write the tables of variables, in docs/variables.md and the roles' READMEs
	@$(BIN)/python tools/reference

.PHONY: docs-matrix
docs-matrix: tests-venv  ## Write the table of what is served how, in docs/models.md, from tests/matrix
	@$(BIN)/python -m tests.matrix.table

.PHONY: lock
lock: tests-venv  ## Resolve requirements/*.in into the hashed lock files
	@tools/lock

##@ Test it

.PHONY: test
test: tests-venv  ## Everything, fast checks first
	@$(MAKE) --jobs=3 --output-sync=target lint test-unit test-localvm test-matrix test-kernels EXAMPLES='$(EXAMPLES)' WORKERS=$$(($$(nproc) + 2))
	@$(MAKE) test-sites EXAMPLES='$(EXAMPLES)' BESIDE=test-clients

.PHONY: test-fast
test-fast: tests-venv  ## What needs no VM
	@$(MAKE) --jobs=2 --output-sync=target lint test-unit EXAMPLES='$(EXAMPLES)' WORKERS=$$(($$(nproc) + 3))

.PHONY: lint
lint: tests-venv  ## Style, types, YAML, roles, shell scripts, references
	@echo "==> Linting"
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	tools/typecheck
	PYTHONPATH=app/iris_api/src $(BIN)/lint-imports --no-cache app/iris_api/pyproject.toml
	PYTHONPATH=app/iris_deploy/src:app/iris_api/src $(BIN)/lint-imports --no-cache --config app/iris_deploy/importlinter.ini
	$(BIN)/yamllint --strict .
	$(BIN)/python -m tools.ansible_lint --offline -q
	git grep -nIE '^#!/bin/(ba)?sh' | sed -n 's/:1:.*//p' | xargs shellcheck
	$(BIN)/python tools/reference --check
	$(BIN)/python -m tools.rules --check
	$(BIN)/python -m tools.dashboards --check
	@$(MAKE) docs

# More than there are cores where time counts: some tests wait most of the time.
WORKERS := auto
PYTEST := $(BIN)/pytest --numprocesses=$(WORKERS) --dist=worksteal
# Random examples of each property: all of them by `make test-unit` and `make robust`, fewer where everything else is tested, too.
EXAMPLES := $(if $(filter test-fast,$(MAKECMDGOALS)),FUZZ_EXAMPLES=150 SCHEMATHESIS_EXAMPLES=5,$(if $(filter \
    test,$(MAKECMDGOALS)),FUZZ_EXAMPLES=500 SCHEMATHESIS_EXAMPLES=10))

.PHONY: test-unit
test-unit: tests-venv  ## Tests without a VM; some of them: T=tests/roles/test_pki.py, T="-k certificate"
	@echo "==> Testing the application, the templates and the tools"
	$(EXAMPLES) $(if $(T),$(BIN)/pytest $(T),$(PYTEST))

.PHONY: test-kernels
test-kernels: tests-venv
	@echo "==> Testing what a model computes, under each of OpenBLAS' kernels"
	$(EXAMPLES) $(BIN)/pytest tests/kernels

# An estimator's threads would wait for each other here, as in an instance, which has one.
.PHONY: test-matrix
test-matrix: tests-venv
	@echo "==> Testing sixty estimators and tables, by each engine that serves them"
	OMP_NUM_THREADS=1 $(PYTEST) tests/matrix

# The packages of others are apart from all else, and installed when they are needed for the first time.
.PHONY: test-clients
test-clients: tests-venv
	@$(PYTHON) tools/control-node clients
	@echo "==> Testing an instance by MLflow's and KServe's clients, exported bundles by MLServer, and the tutorial's commands"
	$(PYTEST) --dist=loadfile tests/clients tests/export tests/tutorial/test_laptop.py $(KEPT)

.PHONY: coverage
coverage: tests-venv  ## Which lines those tests reach: build/coverage/index.html
	$(PYTEST) --cov --cov-report=html:build/coverage --cov-report=term:skip-covered $(T)

.PHONY: mutants
mutants: tests-venv  ## Which mistakes they notice, by a sample: SEED=1 MINUTES=20; the score goes into docs/testing.md
	@$(BIN)/python -m tools.mutants --docs $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

.PHONY: test-role
test-role: tests-venv $(ENV_FILE)  ## One role on a running site: converge its tag, run its tests on the host: R=nginx
	@test -n "$(R)" || { echo "Which role? make test-role R=nginx" >&2; exit 1; }
	@$(PLAYBOOK) site.yml --tags '$(R)'
	FORTRESS_ENV_FILE=$(CURDIR)/$(ENV_FILE) $(BIN)/pytest --ansible-inventory=inventory/$(INVENTORY) --connection=ansible --sudo \
	    $(or $(T),$(HOST_TESTS_$(R)),tests/host/test_monitoring.py)

HOST_TESTS_base := tests/host/test_base.py
HOST_TESTS_pki := tests/blackbox/test_tls.py
HOST_TESTS_iris_api := tests/host/test_api.py
HOST_TESTS_nginx := tests/host/test_gateway.py
HOST_TESTS_prometheus := tests/host/test_monitoring.py tests/alerts/test_dashboards.py
HOST_TESTS_grafana := $(HOST_TESTS_prometheus)
HOST_TESTS_mtail := tests/host/test_signals.py
HOST_TESTS_blackbox_exporter := $(HOST_TESTS_mtail)
HOST_TESTS_node_exporter := $(HOST_TESTS_mtail)
HOST_TESTS_alertmanager := tests/alerts/test_alertmanager.py

# Half of its time it waits for machines to boot and to be cut off. Other machines may not run beside it.
.PHONY: test-localvm
test-localvm: tests-venv
	@$(LOCALVM) setup
	@echo "==> Testing the local VM itself"
	$(SUDO) env PATH="$$PATH" $(BIN)/pytest tests/localvm

# The longest first: they wait so often that five at a time keep two processors busy.
SITES := default debian12 alerts deployments cluster
# What needs no site and takes minutes, in which the first ones are converged; and how all that it prints is kept.
BESIDE :=
KEPT = $(if $(BESIDE),2>&1 | tee build/sites/$@.log)

.PHONY: test-sites
test-sites: tests-venv
	@$(LOCALVM) setup
	@echo "==> Testing the whole site on Debian 13 and on Debian 12, its alerts, deployments, and several hosts; each is printed when it is done"
	@rm -rf build/sites && mkdir -p build/sites
	@$(EXAMPLES) $(MAKE) --jobs=5 --keep-going --output-sync=target $(BESIDE) $(SITES:%=test-site-%) || \
	    { echo "What was red, by scenario; build/sites has all that each printed:" >&2; \
	    grep -aE '(FAILED|ERROR) [^ ]*tests/|\[ERROR\]|fatal: ' build/sites/*.log | cut -c -300 | tail -n 16 >&2; exit 1; }

# One of Molecule's scenarios by its name. What it prints is kept: test-sites ends with what was red in these thousands of lines.
test-site-%: tests-venv
	@mkdir -p build/sites
	COLUMNS=160 $(BIN)/molecule test --scenario-name $* 2>&1 | tee build/sites/$*.log

.PHONY: test-ansible
test-ansible: tests-venv  ## A site made by the newest Ansible that works, from a Debian 13 to another one (six minutes)
	@$(LOCALVM) setup
	$(BIN)/molecule test --scenario-name newest

.PHONY: robust
robust: tests-venv  ## Schema, fuzz and load through the gateway; the long run: FUZZ_EXAMPLES=100000 SOAK_SECONDS=3600
	@$(LOCALVM) setup
	$(BIN)/molecule test --scenario-name robust

.PHONY: faults
faults: tests-venv  ## Break things under load, count failed requests: docs/faults.md (three quarters of an hour)
	$(call UNDER_LOAD,faults cluster upgrade)

.PHONY: attacks
attacks: tests-venv  ## One client attacks, another one asks: docs/faults.md (25 minutes, on a machine that does nothing else)
	$(call UNDER_LOAD,attacks)

# Runs scenarios of Molecule; where all of them are green, what they recorded becomes tables of docs/faults.md.
# The tests of several hosts are in the folder of the others, too: CLUSTER=whole for their scenario alone.
define UNDER_LOAD
@$(LOCALVM) setup
@mkdir -p build && rm -f build/$@.json
@red=; for scenario in $(1); do \
    CLUSTER=$${scenario/#cluster/whole} FORTRESS_FAULTS_RECORD=$(CURDIR)/build/$@.json $(BIN)/molecule test --scenario-name $$scenario || red="$$red $$scenario"; \
done; \
test -z "$$red" || { echo "Red:$$red. docs/faults.md stays as it was." >&2; exit 1; }
@$(BIN)/python -m tests.faults.table build/$@.json
endef

##@ Measure it

.PHONY: observing
observing: control  ## What observing costs while somebody asks the site: SECONDS=60; PAUSE=1 compares with a time without it
	@$(BIN)/python -m tools.observing -i inventory/$(INVENTORY) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(PAUSE),--pause)

.PHONY: bench
bench: tests-venv  ## Against the limit, the naive way and its peers: docs/benchmarks.md (three quarters of an hour)
	@$(BIN)/python -m benchmarks --docs
	@$(BIN)/python -m benchmarks.profile --docs
	@$(BIN)/python -m benchmarks.mixed --docs
	@$(BIN)/python -m benchmarks.batches --docs
	@$(BIN)/python -m benchmarks.batches --beside 10 --rounds 3 --docs

.PHONY: control tests-venv
control:
	@$(PYTHON) tools/control-node control
tests-venv:
	@$(PYTHON) tools/control-node test

.PHONY: help
help:  ## This list
	@awk 'BEGIN { FS = ":.*##" } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	    /^[a-z-]+:.*##/ { gsub(/\$$\$$/, "$$"); printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
