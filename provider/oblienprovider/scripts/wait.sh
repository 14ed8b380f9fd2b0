# Waits for the end of the process $2, at most $3 seconds. 10: it has ended, as it prints, 11: nobody knows how, 12: it runs.
enter "$@"
over || await "$3"
over || exit 12
[ "$lost" ] && exit 11
cat exit
exit 10
