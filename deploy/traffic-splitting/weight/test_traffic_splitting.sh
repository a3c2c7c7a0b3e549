#!/bin/sh
# test_traffic_splitting.sh [NAMESPACE]  The split is within what chance allows; without the fleet the fallback serves all.
exec "$(dirname "$0")/../../check.sh" traffic-splitting-weight "$@"
