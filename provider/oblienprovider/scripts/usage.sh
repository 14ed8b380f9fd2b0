# Prints what the processes have used: the clock's ticks in a second; of those that have ended, what the shell says; of
# those that run, user and system time in ticks, their own and that of the children they have waited for.
echo "hz $(getconf CLK_TCK 2>/dev/null || echo 100)"
sessions=" "
for ticket in "$1"/names/*; do
	{ read -r run <"$ticket"; } 2>/dev/null || continue
	cd "$1/runs/$run" || continue
	if [ -e times ]; then
		while read -r user system; do ended="$user $system"; done <times # the last line is of the children
		echo "ended $ended"
	elif { read -r child start <child; } 2>/dev/null; then
		sessions="$sessions$child "
	fi
done
for file in /proc/[0-9]*/stat; do
	{ read -r line <"$file"; } 2>/dev/null || continue
	set -- ${line##*) }
	case $sessions in *" $4 "*)
		shift 11
		echo "runs $1 $2 $3 $4"
		;;
	esac
done
