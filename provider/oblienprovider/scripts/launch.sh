# Starts the supervisor of the run $3 under the name $2. 0: started, 17: the name is in use.
cd "$1/runs/$3" || exit 40
session=
command -v setsid >/dev/null 2>&1 && session=setsid || trap '' HUP
answer=$($session sh ./supervise "$1" "$2" </dev/null 2>/dev/null &)
case $answer in
started) exit 0 ;;
exists) code=17 ;;
*) code=41 ;;
esac
cd "$1" && rm -rf "runs/$3"
exit $code
