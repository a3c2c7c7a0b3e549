#!/bin/sh
# test_traffic_splitting.sh [NAMESPACE]  Each model is served by its backend; without the fleet the fallback serves all.
exec "$(dirname "$0")/../../check.sh" traffic-splitting-prefix "$@"
