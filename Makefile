# One line each; everything else is cargo's.
.PHONY: demo test lint golden bench dist clean

demo: ## Two instances live their whole lives on this machine; ends well only if every step was seen
	cargo build --locked --quiet -p launcher -p agent -p sandbox && target/debug/cml-sandbox demo

test: ## Everything that can be tested here; installs its pinned Python and node packages into ignored folders
	tests/run.sh

lint: ## Format, clippy, dependency rules, shell scripts
	tests/lint.sh

golden: ## Rewrite the generated docs and golden files; look at the diff before you commit it
	UPDATE_GOLDEN=1 INSTA_UPDATE=always cargo test --locked --workspace

bench: ## Speed and size, each beside what it is measured against
	tests/bench.sh

dist: ## Both programs, portable (glibc 2.17), with checksums, in dist/
	tools/dist

clean:
	cargo clean && rm -rf dist .venv .node tests/contract/*/node_modules tests/contract/*/.venv
