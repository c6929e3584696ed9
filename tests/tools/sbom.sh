#!/bin/bash
# sbom.sh BINARY OUTPUT VERSION: says in CycloneDX what modules a binary was built from, by
# its own build information, and the licences in them. Go's standard library is one of
# them. There is no time and no random number in it: the same binary has the same one.
set -euo pipefail
binary=$(realpath "$1") output=$(realpath -m "$2") version=$3
cd "$(dirname "$0")"
tool=$(CGO_ENABLED=0 ${GO:-go} tool -n cyclonedx-gomod)
# What it says of licences that it cannot find is about this module, which nobody
# published, and the standard library: LICENSE here, and Go's own.
"$tool" bin -json -licenses -assert-licenses -std -noserial -notimestamp -version "$version" -output "$output" "$binary" 2>"$output.log" ||
  { cat "$output.log" >&2; exit 1; }
rm -f "$output.log"
# One line for each module, for who reads.
${GO:-go} run ./licences "$output"
