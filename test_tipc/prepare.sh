#!/bin/bash
# Prepare a run of Paddle's TIPC scripts: bash test_tipc/prepare.sh CONFIG MODE
# The digits of scikit-learn need no download. So this only removes the files of an earlier run of this model: its
# folders, and its lines in the log, because the scripts append to it.
set -eu
model=$(sed -n 's/^model_name://p' "$1")
case "$model" in
    *[!a-z0-9-]* | "") echo "$1 names no model" >&2; exit 2 ;;
esac
rm -rf test_tipc/output/*/"$model" test_tipc/output/"$model"-model
log=test_tipc/output/results_python.log
if [ -f "$log" ]; then
    grep -vE "[/ ]$model(-model)? " "$log" > "$log.new" || true  # grep fails if no line is left
    mv "$log.new" "$log"
fi
