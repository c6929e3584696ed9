#!/bin/bash
# Compares the benchmarks of the working tree with those of a commit, in turns:
#
#     tests/tools/benchstat.sh COMMIT [REGEXP [ROUNDS [BENCHTIME]]]
#
# The commit is checked out in a temporary directory, which goes however this ends.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CGO_ENABLED=0
base=$(git rev-parse --verify --quiet "${1:-}^{commit}") || { echo "usage: make benchstat BASE=<commit> [BENCH=regexp] [COUNT=6]" >&2; exit 2; }
bench=${2:-.} rounds=${3:-6} benchtime=${4:-0.5s}

root=$PWD
tmp=$(mktemp -d)
clean() { cd "$root"; git worktree remove --force "$tmp/base" 2>/dev/null || true; rm -rf "$tmp"; git worktree prune; }
trap clean EXIT
trap 'exit 130' INT TERM HUP
git worktree add --quiet --detach "$tmp/base" "$base"
ln -s "$root" "$tmp/head"

for side in base head; do
	mkdir "$tmp/$side.bin"
	cd "$tmp/$side"
	for dir in $(grep -rl '^func Benchmark' --include='*_test.go' nft controller cmd | xargs -r dirname | sort -u); do
		go test -c -o "$tmp/$side.bin/${dir//\//+}" "./$dir"
	done
done

# run runs the benchmarks of one side once.
run() {
	for program in "$tmp/$1.bin"/*; do
		dir=$(basename "$program")
		cd "$tmp/$1/${dir//+//}"
		"$program" -test.run '^$' -test.bench "$bench" -test.benchtime "$benchtime" -test.benchmem >>"$tmp/$1.txt"
	done
}

for ((i = 1; i <= rounds; i++)); do
	echo "round $i of $rounds" >&2
	# Who is first takes turns, too.
	if ((i % 2)); then run base; run head; else run head; run base; fi
done
cd "$root/tests/tools"
go tool benchstat "$(git describe --always "$base")=$tmp/base.txt" "working tree=$tmp/head.txt"
