#!/bin/sh
# test_load_balance.sh [NAMESPACE]  Engines are found through Redis and share the work; one is replaced under load.
exec "$(dirname "$0")/../../../check.sh" neutral "$@"
