#!/usr/bin/env bash
# The servers that some suites need: PostgreSQL and Redis, from the machine's own packages (installed with apt where this
# is root on Debian), on free ports of the loopback interface, in a temporary folder, under an unprivileged account.
#
#   services.sh start [postgres] [redis]  starts them and writes .services/env, to be sourced; default: what the tree needs
#   services.sh stop                      stops what start started and removes its folder
#   services.sh with COMMAND...           runs COMMAND with servers of its own and stops them after it
#
# A server whose FRESHET_PG_URL or FRESHET_REDIS_URL is set already is not started. One that cannot be had is named in one
# line, and is a failure when FRESHET_REQUIRE_SERVICES=1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
here=$PWD
state=$PWD/.services

say() { echo "services: $*" >&2; }

needed() {
	if [[ -e backend/pgbackend/go.mod ]]; then echo postgres; fi
	if [[ -e backend/redisbackend/go.mod ]]; then echo redis; fi
}

# as runs a command as an account that is not root: PostgreSQL refuses root, and a test server should not have its rights.
as() {
	if ((EUID != 0)); then
		"$@"
	else
		setpriv --reuid="$account" --regid="$(id -g "$account")" --clear-groups -- "$@"
	fi
}

# find_postgres puts PostgreSQL's programs on the PATH; Debian keeps them off it.
find_postgres() {
	local dir
	for dir in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV); do
		PATH=$PATH:$dir
	done
	command -v initdb >/dev/null && command -v pg_ctl >/dev/null
}

find_redis() { command -v redis-server >/dev/null && command -v redis-cli >/dev/null; }

free_port() { echo $((20000 + RANDOM % 12000)); } # below the ports that kernels give to clients; may be in use: try again

start_postgres() {
	local dir=$1 secret=$2 port
	as initdb -D "$dir/postgres" -U freshet --pwfile="$dir/secret" --auth=scram-sha-256 --locale=C --encoding=UTF8 \
		--no-sync >"$dir/initdb.log" 2>&1 || { tail -n 5 "$dir/initdb.log" >&2; return 1; }
	for _ in {1..10}; do
		port=$(free_port)
		if as pg_ctl -D "$dir/postgres" -l "$dir/postgres.log" -w -t 60 \
			-o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories= -c max_connections=200" \
			start >/dev/null 2>&1; then
			echo "export FRESHET_PG_URL='postgres://freshet:$secret@127.0.0.1:$port/postgres?sslmode=disable'" >>"$dir/env"
			return
		fi
	done
	tail -n 5 "$dir/postgres.log" >&2
	return 1
}

redis() { REDISCLI_AUTH=$(<"$1/secret") redis-cli -p "$(<"$1/redis.port")" "${@:2}"; }

start_redis() {
	local dir=$1 secret=$2 port
	for _ in {1..10}; do
		port=$(free_port)
		echo "$port" >"$dir/redis.port"
		rm -f "$dir/redis.log"
		as redis-server - <<-END >/dev/null || return 1
			bind 127.0.0.1
			port $port
			requirepass $secret
			dir $dir
			logfile $dir/redis.log
			pidfile $dir/redis.pid
			daemonize yes
			save ""
			appendonly yes
		END
		for _ in {1..100}; do
			if grep -qs 'Ready to accept connections' "$dir/redis.log"; then
				echo "export FRESHET_REDIS_URL='redis://default:$secret@127.0.0.1:$port/0'" >>"$dir/env"
				return
			fi
			if grep -qs 'Failed listening' "$dir/redis.log"; then break; fi
			sleep 0.1
		done
	done
	tail -n 5 "$dir/redis.log" >&2
	return 1
}

# start_one NAME PACKAGE VARIABLE DIR SECRET
start_one() {
	local name=$1 package=$2 variable=$3
	if [[ -n ${!variable:-} ]]; then
		echo "export $variable='${!variable}'" >>"$4/env"
	elif { "find_$name" || { scripts/apt-install.sh "$package" && hash -r && "find_$name"; }; } && owned "$4" &&
		(cd "$4" && "start_$name" "$4" "$5"); then # the account may not enter this folder
		say "$name is up"
	elif [[ ${FRESHET_REQUIRE_SERVICES:-} == 1 ]]; then
		say "$name cannot be had: its suites cannot run"
		return 1
	else
		say "$name cannot be had: its suites are skipped ($variable is not set)"
	fi
}

# owned gives the folder to the account, which a package may just have made.
owned() {
	account=nobody
	if id postgres &>/dev/null; then account=postgres; fi
	((EUID != 0)) || chown -R "$account" "$1"
}

start_all() {
	local dir=$1 secret name
	shift
	secret=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
	echo "$secret" >"$dir/secret"
	: >"$dir/env"
	for name in "$@"; do
		case $name in
		postgres) start_one postgres postgresql FRESHET_PG_URL "$dir" "$secret" ;;
		redis) start_one redis redis-server FRESHET_REDIS_URL "$dir" "$secret" ;;
		*) say "unknown: $name" && return 2 ;;
		esac || return
	done
}

stop_all() {
	local dir=$1
	if [[ $dir != */freshet-services.* || ! -d $dir ]]; then return; fi
	owned "$dir"
	if [[ -e $dir/postgres/postmaster.pid ]] && find_postgres; then
		(cd "$dir" && as pg_ctl -D "$dir/postgres" -m immediate -w stop >/dev/null) || say "postgres did not stop"
	fi
	if [[ -e $dir/redis.pid ]]; then
		redis "$dir" shutdown nosave >/dev/null 2>&1 || true
		for _ in {1..100}; do
			if [[ ! -e $dir/redis.pid ]]; then break; fi # Redis removes it last
			sleep 0.1
		done
	fi
	rm -rf "$dir"
}

new_dir() {
	((EUID != 0)) || export TMPDIR=/tmp # another account must be able to enter it
	mktemp -d "${TMPDIR:-/tmp}/freshet-services.XXXXXX"
}

stop() {
	if [[ -e $state/dir ]]; then stop_all "$(<"$state/dir")"; fi
	rm -rf "$state"
}

names() { if (($#)); then echo "$@"; else needed; fi; }

case ${1:-} in
start)
	shift
	stop
	mkdir "$state"
	dir=$(new_dir)
	echo "$dir" >"$state/dir"
	trap stop EXIT
	start_all "$dir" $(names "$@")
	(umask 077 && cat "$dir/env" >"$state/env")
	trap - EXIT
	say "source ${state#"$here"/}/env"
	;;
stop)
	stop
	;;
with)
	shift
	dir=$(new_dir)
	trap 'stop_all "$dir"' EXIT
	start_all "$dir" $(needed)
	source "$dir/env"
	"$@"
	;;
*)
	sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
	exit 2
	;;
esac
