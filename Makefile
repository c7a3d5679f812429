# One line each; everything else is cargo's.
.PHONY: demo test test-machine test-gitlab-runner fuzz lint golden bench dist packages clean
FORGE ?= github
CLOUD ?= aws

demo: ## Two instances live their whole lives on this machine (FORGE=gitlab or bitbucket, CLOUD=azure, gcp or kubernetes: there); ends well only if every step was seen
	cargo build --locked --quiet -p launcher -p agent -p sandbox && target/debug/cml-sandbox demo --forge=$(FORGE) --cloud=$(CLOUD)

test: ## Everything that can be tested here; installs its pinned Python and node packages into ignored folders
	tests/run.sh

test-machine: ## Only the machines that boot a Debian with systemd and cloud-init; needs root, mmdebstrap, systemd-container, dnsmasq-base
	cargo build --locked --workspace --all-targets && CML_TEST_IMAGE=$$(tests/machine/image.sh) cargo test --locked -p e2e --test machine

test-gitlab-runner: ## The scenarios of GitLab with its real runner, the program that GITLAB_RUNNER_BIN names
	@test -x "$(GITLAB_RUNNER_BIN)" || { echo "GITLAB_RUNNER_BIN must name a gitlab-runner program"; exit 2; }
	cargo build --locked --workspace --all-targets && cargo test --locked -p e2e gitlab

fuzz: ## Every fuzz target for a minute (FUZZ_SECONDS=60), or some (FUZZ="spec hook_word"); needs a C++ compiler
	tools/fuzz

lint: ## Format, clippy, dependency rules, shell scripts
	tests/lint.sh

golden: ## Rewrite the generated docs and golden files; look at the diff before you commit it
	UPDATE_GOLDEN=1 INSTA_UPDATE=always cargo test --locked --workspace

bench: ## Speed and size, each beside what it is measured against
	tests/bench.sh

dist: ## Both programs, portable (glibc 2.17), with checksums, in dist/
	tools/dist

packages: ## Debian and RPM packages of what `make dist` has built, in dist/
	tools/packages

clean:
	cargo clean && rm -rf fuzz/target dist .venv .node tests/contract/*/node_modules tests/contract/*/.venv
