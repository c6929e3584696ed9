#!/bin/bash
# fuzz.sh TIME [PATTERN]: runs each fuzz target of this module whose package and name
# match, for so long, and says how many failed. What fails is kept below the package's
# testdata/fuzz, and from then on every go test runs it. An input that is new is made small
# for a second, not for the minute that is the default: large ones would take all the time.
set -uo pipefail
cd "$(dirname "$0")/../.."
time=$1 pattern=${2:-.} failed=0 ran=0
while read -r file name; do
  package=./$(dirname "$file")
  [[ $package.$name =~ $pattern ]] || continue
  ran=$((ran + 1))
  go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 1s "$package" || { echo "FAIL $package $name"; failed=$((failed + 1)); }
done < <(git ls-files --cached --others --exclude-standard '*_test.go' | grep -v '^tests/compare/' |
  xargs grep -H -o '^func Fuzz[A-Za-z0-9]*' | sed 's/:func / /')
echo "$ran fuzz targets, $failed failed"
[ "$failed" = 0 ] && [ "$ran" -gt 0 ]
