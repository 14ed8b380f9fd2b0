# Says whether a process of the name $2 was ever started: 0, or 20.
enter "$@"
