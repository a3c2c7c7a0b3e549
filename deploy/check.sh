#!/bin/sh
# check.sh EXAMPLE [NAMESPACE]  runs the check of an example against the cluster that kubectl is configured for. Exit status 0: it passed.
# First: npm ci; kubectl apply -n NAMESPACE -k deploy/simulated/EXAMPLE
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
node=$root/node_modules/.bin/node
[ -x "$node" ] || node=node
exec "$node" "$root/e2e/src/deploy/check.ts" "$@"
