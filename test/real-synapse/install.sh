#!/usr/bin/env bash
# Installs the Synapses that the tests run against: each requirements-VERSION.txt here in a virtual
# environment of its own, .synapse/VERSION. Where that can't be, it says why, and the tests skip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

give_up() {
  echo "Synapse was not installed: $1. The tests beside it will be skipped." >&2
  exit 0
}

python=
for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
  if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2> /dev/null; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || give_up 'there is no Python 3.10 or later with venv'

for requirements in test/real-synapse/requirements-*.txt; do
  version=${requirements##*-}
  version=${version%.txt}
  folder=.synapse/$version
  if cmp -s "$requirements" "$folder/requirements.txt"; then continue; fi
  rm -rf "$folder"
  "$python" -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements" ||
    give_up "pip could not install matrix-synapse $version"
  # Last, so that an install that was cut off is begun anew.
  cp "$requirements" "$folder/requirements.txt"
done
