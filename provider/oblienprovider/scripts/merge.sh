# Moves what was uploaded to $1/in/$2/f to the folder $3 below the home folder $4. 21: a link or a folder is in the way;
# nothing was moved then.
from=$1/in/$2/f
cd "$1" || exit 40
refuse() {
	rm -rf "$1"
	exit 21
}

# target goes to the folder $1 step by step and makes what is missing; a link is not followed.
target() {
	cd "$home" || return 1
	rest=$1/
	while [ "$rest" ]; do
		step=${rest%%/*}
		rest=${rest#*/}
		case $step in '' | .) continue ;; esac
		[ -L "./$step" ] && return 1
		if [ ! -d "./$step" ]; then
			[ -e "./$step" ] && return 1
			[ "$dry" ] && return 2
			mkdir "./$step" || return 1
		fi
		cd "./$step" || return 1
	done
}

# fits says whether all of folder $1 can be moved into folder $2.
fits() {
	for entry in "$1"/* "$1"/.[!.]* "$1"/..?*; do
		[ -e "$entry" ] || [ -L "$entry" ] || continue
		name=${entry##*/}
		if [ -d "$entry" ] && [ ! -L "$entry" ]; then
			[ -L "$2/$name" ] && return 1
			[ -e "$2/$name" ] || continue
			[ -d "$2/$name" ] || return 1
			(fits "$entry" "$2/$name") || return 1
		elif [ -d "$2/$name" ] && [ ! -L "$2/$name" ]; then
			return 1
		fi
	done
	return 0
}

# move moves all of folder $1 into folder $2.
move() {
	for entry in "$1"/* "$1"/.[!.]* "$1"/..?*; do
		[ -e "$entry" ] || [ -L "$entry" ] || continue
		name=${entry##*/}
		if [ -d "$entry" ] && [ ! -L "$entry" ] && [ -d "$2/$name" ]; then
			(move "$entry" "$2/$name") || return 1
		else
			[ -L "$2/$name" ] && rm -f "$2/$name" # mv would follow a link to a folder
			mv -f "$entry" "$2/$name" || return 1
		fi
	done
	return 0
}

home=$4
dry=1
target "$3"
case $? in
0) (fits "$from" "$PWD") || refuse "$1/in/$2" ;;
1) refuse "$1/in/$2" ;;
esac
dry=
target "$3" && move "$from" "$PWD" || exit 43
rm -rf "$1/in/$2"
