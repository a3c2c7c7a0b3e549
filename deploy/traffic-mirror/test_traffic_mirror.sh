#!/bin/sh
# test_traffic_mirror.sh [NAMESPACE]  All requests are mirrored, none after mirroring was disabled by the file, all after it was enabled; nothing restarts.
exec "$(dirname "$0")/../check.sh" traffic-mirror "$@"
