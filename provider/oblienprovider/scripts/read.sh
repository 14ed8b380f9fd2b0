# Writes the output of the process $2 from byte $3 of stdout and $4 of stderr on, the first byte being 1.
# 10: that was all, 11: it was, and nobody knows how the process ended, 12: it runs; $5 seconds are over.
exec 3>&2 2>/dev/null # the shell's own messages are no output
enter "$@"
if over; then
	tail -c "+$3" out
	tail -c "+$4" err >&3
	[ "$lost" ] && exit 11
	exit 10
fi
tail -f -c "+$3" out 3>&- &
a=$!
tail -f -c "+$4" err >&3 &
b=$!
await "$5"
kill "$a" "$b"
exit 12
