#!/bin/bash
# reproducible.sh: builds kube-nft twice, from copies of this tree in directories of
# different names, each without anything of the other in its cache, and compares. The Go
# version has to be the same; it is in the binary (go version -m).
set -euo pipefail
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP
export GOFLAGS="${GOFLAGS:-} -buildvcs=false" # a copy is no checkout
for copy in one another/deeper; do
  mkdir -p "$tmp/$copy"
  git ls-files -z --cached --others --exclude-standard | tar -c --null --files-from=- --mode=u+w --mtime="@$RANDOM" | tar -x -C "$tmp/$copy"
  GOCACHE="$tmp/cache-${copy%/*}" make -s -C "$tmp/$copy" build
done
sha256sum "$tmp"/one/bin/kube-nft "$tmp"/another/deeper/bin/kube-nft
cmp "$tmp"/one/bin/kube-nft "$tmp"/another/deeper/bin/kube-nft
echo "the same"
