#!/bin/sh
# Writes an empty file for each that the manifests name, so that the dependencies can be built before the code is there:
# that layer is made again only when Cargo.toml or Cargo.lock change. Run where the manifests are.
set -eu
mkdir -p src benches loadtest/src
touch src/lib.rs
echo 'fn main() {}' | tee src/main.rs >loadtest/src/main.rs
sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"/\1/p' Cargo.toml | while read -r bench; do
    echo 'fn main() {}' >"benches/$bench.rs"
done
