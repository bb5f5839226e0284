# What a developer and CI type. Everything that is missing on a fresh Debian or Ubuntu (beyond Rust, a C toolchain
# and apt) is installed by these targets: Debian packages by apt, everything else under $(TOOLS), once.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
export TOOLS ?= $(CURDIR)/target/tools
# Most tests wait for brokers, timers and files: more of them run at a time than there are processors.
export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc) + 1)))

.PHONY: test simulate run lint tools bench loadtest book sbom packages

test: tools  ## every test: units, properties, and the real program against real brokers and clients
	cargo test
	cargo test -p loadtest
	scripts/check-deploy.sh

simulate: packages  ## lives of the whole gateway in a simulator: SEEDS=1-100000, or one seed with its story
	FOREBAY_SIMULATE_SEEDS=$(SEEDS) cargo test --lib tests::simulator::what_was_promised -- --nocapture

run: packages  ## the gateway on this machine with nothing set up; it prints a curl line that works
	cargo run --profile plain --no-default-features -- dev

lint: packages  ## format, lints, licences and advisories
	cargo fmt --all --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy -p loadtest --all-targets --features kafka,kinesis -- -D warnings
	scripts/deny.sh

tools:  ## what the tests need: Kafka, ferrokinesis, HTTP clients, h2spec, sslyze
	scripts/install-tools.sh

bench: packages  ## criterion benches, and a table of them in target/bench.md
	cargo bench
	scripts/bench-table.py

loadtest: packages  ## a fleet against a gateway that it starts, the audit of what arrived, and a report to look at
	cargo build --release
	cargo build --release -p loadtest
	loadtest/run.sh

book: tools  ## the pages of docs/ as a book, in target/book
	$(TOOLS)/venv-deploy/bin/mdbook build docs

sbom: packages  ## what the gateway is made of, CycloneDX, in target/sbom
	scripts/sbom.sh

packages:
	scripts/install-packages.sh build
