#!/usr/bin/env bash
# apt-install.sh PACKAGE...: installs Debian packages, without starting the system services that they bring along.
set -euo pipefail

if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
	echo "missing, and only root on Debian can install them here: $*" >&2
	exit 1
fi

log=$(mktemp)
policy=/usr/sbin/policy-rc.d # Debian asks it before a package may start a service; 101 forbids
if [[ -e $policy ]]; then
	trap 'rm -f "$log"' EXIT
else
	trap 'rm -f "$log" "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi

echo "installing: $*" >&2
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update && apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=120 "$@"; } &>"$log" </dev/null; then
	tail -n 20 "$log" >&2
	exit 1
fi
