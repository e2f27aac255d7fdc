#!/bin/bash
# Prepare a run of Paddle's TIPC scripts: bash test_tipc/prepare.sh CONFIG MODE
# The digits of scikit-learn need no download. So only what an earlier run of this model wrote is removed.
set -eu
model=$(sed -n 's/^model_name://p' "$1")
case "$model" in
    *[!a-z0-9-]* | "") echo "$1 names no model" >&2; exit 2 ;;
esac
rm -rf test_tipc/output/*/"$model" test_tipc/output/"$model"-model
