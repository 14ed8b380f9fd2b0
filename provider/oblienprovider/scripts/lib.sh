# What the other scripts share; it stands in front of each of them.
# $1 is the folder of all processes: names/<name> is a hard link to runs/<run>/ticket, which holds <run>.

# enter goes to the folder of the process $2; 20: there is none.
enter() {
	{ read -r run <"$1/names/$2"; } 2>/dev/null || exit 20
	cd "$1/runs/$run" || exit 20
}

# field prints field $2 of process $1, counted from its state, which is 1.
field() {
	{ read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
	n=$2
	set -- ${line##*) }
	shift $((n - 1))
	echo "$1"
}

# alive says whether the supervisor of the process in this folder lives; its pid may be another's by now, or of another boot.
alive() {
	{ read -r pid start boot <sup; } 2>/dev/null || return 1
	read -r now </proc/sys/kernel/random/boot_id
	[ "$now" = "$boot" ] && [ "$(field "$pid" 20)" = "$start" ] && [ "$(field "$pid" 1)" != Z ]
}

# over says whether the process in this folder has ended; lost is set when nobody knows how.
over() {
	lost=
	[ -e exit ] && return 0
	alive && return 1
	[ -e exit ] || lost=1
	return 0
}

# await waits until the process in this folder ends, at most $1 seconds. Its supervisor holds the pipe open.
await() {
	sleep "$1" &
	timer=$!
	{
		read -r line <done
		kill "$timer"
	} 2>/dev/null &
	waiter=$!
	wait "$timer"
	kill "$waiter" 2>/dev/null
}
