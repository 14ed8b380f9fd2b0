# Sends signal $3 to the process $2 and its descendants. 0: done, or it has ended; 42: it is being started.
enter "$@"
[ -e exit ] && exit 0
sig=$3
{ read -r child start <child; } 2>/dev/null || { alive && exit 42; exit 0; }
[ "$(field "$child" 20)" = "$start" ] || exit 0

# family sets all to the pids of the process, its session, and the children of any of them.
family() {
	all=" $child "
	grown=1
	while [ "$grown" ]; do
		grown=
		for file in /proc/[0-9]*/stat; do
			{ read -r line <"$file"; } 2>/dev/null || continue
			pid=${line%% *}
			case $all in *" $pid "*) continue ;; esac
			set -- ${line##*) }
			if [ "$3" = "$child" ] || [ "$4" = "$child" ]; then
				all="$all$pid "
				grown=1
				continue
			fi
			case $all in *" $2 "*)
				all="$all$pid "
				grown=1
				;;
			esac
		done
	done
}

family
kill -s "$sig" $all 2>/dev/null
if [ "$sig" = KILL ]; then # what was born meanwhile
	family
	kill -s KILL $all 2>/dev/null
fi
exit 0
