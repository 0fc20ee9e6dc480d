#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes new values for the Secret of deploy/k8s and prints them as a patch for it, which the cluster takes only while the
# Secret is empty:
#
#   kubectl --namespace nexus patch secret nexus --type json --patch "$(sh deploy/k8s/new-secret.sh [TENANT [SCOPES]])"
#
# The token of the first caller goes to stderr, this once; only its hash is kept. REDIS_PASSWORD in the environment is the
# password of a Redis that is there already; it becomes part of a URL, so what is special there is written %XX. Needs openssl.
set -eu

tenant=${1:-default}
scopes=${2:-execute,handlers,resume,read}

case ${REDIS_PASSWORD:-} in
*[!A-Za-z0-9._~%-]*)
  echo "REDIS_PASSWORD: write all but letters, digits and . _ ~ - as %XX" >&2
  exit 2
  ;;
esac

digits() { openssl rand -hex 32; }
token=$(digits)
hash=$(printf %s "$token" | openssl dgst -sha256 -r)

cat <<EOF
[{"op": "test", "path": "/data", "value": null},
 {"op": "add", "path": "/stringData", "value": {
   "suspend-key": "$(digits)",
   "redis-password": "${REDIS_PASSWORD:-$(digits)}",
   "auth-tokens": "$tenant $scopes sha256:${hash%% *}\\n"}}]
EOF
echo "token of $tenant ($scopes): $token" >&2
