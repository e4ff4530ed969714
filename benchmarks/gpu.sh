#!/usr/bin/env bash
# Every GPU check and benchmark on one GPU, in under nine minutes: see benchmarks/README.md.
# Options go to suite.py, such as --commit HASH; PYTHON names another interpreter than python3.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" benchmarks/suite.py --device cuda "$@"
