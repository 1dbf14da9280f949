#!/bin/sh
# What the tests start beside Node: PostgreSQL's programs without a server of their own, and Python's
# cryptography.
set -eu
sudo install -d /etc/postgresql-common
echo 'create_main_cluster = false' | sudo tee /etc/postgresql-common/createcluster.conf
sudo apt-get update
sudo apt-get install -y --no-install-recommends postgresql python3-cryptography
CI=true npx -y pnpm@12.4.2 install --frozen-lockfile
