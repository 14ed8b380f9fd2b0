module github.com/freshet-dev/freshet/tests

go 1.25.0

require github.com/freshet-dev/freshet v0.0.0

require golang.org/x/sync v0.21.0 // indirect

replace github.com/freshet-dev/freshet => ../
