#!/bin/sh
# test_disaggregation.sh [NAMESPACE]  Every request takes both legs, with the bodies of vllm-kvt.
exec "$(dirname "$0")/../../../check.sh" pd-kvs "$@"
