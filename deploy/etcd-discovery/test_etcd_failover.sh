#!/bin/sh
# test_etcd_failover.sh [NAMESPACE]  One etcd node fails, then the quorum, then all data is lost, then an engine pod is replaced; all of it under load.
exec "$(dirname "$0")/../check.sh" etcd-discovery "$@"
