package policy

// MassDeletion says whether deleting n of all workspaces is so much that something other than orphans may be the cause:
// a Store that lost its data, or the wrong Store.
func MassDeletion(n, all int) bool { return n > max(10, all/5) }
