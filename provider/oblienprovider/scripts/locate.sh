# Looks for the path $2 below the home folder $3. 20: there is no such path, 21: a link leads there.
cd "$3" || exit 20
rest=$2/
while [ "$rest" ]; do
	step=${rest%%/*}
	rest=${rest#*/}
	case $step in '' | .) continue ;; esac
	[ -L "./$step" ] && exit 21
	[ -e "./$step" ] || exit 20
	if [ "$rest" ]; then
		[ -d "./$step" ] || exit 20
		cd "./$step" || exit 20
	fi
done
exit 0
