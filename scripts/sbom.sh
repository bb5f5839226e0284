#!/usr/bin/env bash
# Writes what the gateway is made of to target/sbom/forebay.cdx.json: CycloneDX 1.5, every crate of the release build with its
# version, licence and checksum. Installs cargo-cyclonedx under $TOOLS where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
TOOLS="${TOOLS:-$PWD/target/tools}"
VERSION=0.5.9
export PATH="$TOOLS/bin:$PATH"

if [ "$(cargo cyclonedx --version 2>/dev/null | grep -o '[0-9.]*$')" != "$VERSION" ]; then
    echo "installing cargo-cyclonedx $VERSION"
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install cargo-cyclonedx --version "$VERSION" --locked --root "$TOOLS" --target-dir "$TOOLS/build"
    rm -rf "$TOOLS/build"
fi

# It writes a file beside the manifest of each member of the workspace: only the gateway's is wanted.
cargo cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --override-filename sbom.tmp
mkdir -p target/sbom
mv sbom.tmp.json target/sbom/forebay.cdx.json
rm -f loadtest/sbom.tmp.json
echo "target/sbom/forebay.cdx.json: $(grep -c '"bom-ref"' target/sbom/forebay.cdx.json) components"
