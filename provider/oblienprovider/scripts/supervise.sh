# The supervisor of one process. It runs in the process's folder; $1 is the folder of all processes, $2 the name. It answers
# "started", "exists" or "failed", and ends with the process.
mkfifo done || { echo failed; exit 1; }
exec 9<>done # held open until the end: whoever waits for the end reads it
read -r boot </proc/sys/kernel/random/boot_id
echo "$$ $(field $$ 20) $boot" >sup
if ! ln ticket "$1/names/$2" 2>/dev/null; then
	if [ -e "$1/names/$2" ]; then echo exists; else echo failed; fi
	exit 1
fi
echo "$boot" >"$1/boot"

# kills prints how often the kernel has killed for lack of memory.
kills() {
	while read -r key value; do
		[ "$key" = oom_kill ] && echo "$value"
	done </proc/vmstat
}

session=
command -v setsid >/dev/null 2>&1 && session=setsid
before=$(kills)
: >out
: >err
$session sh ./cmd <stdin >out 2>err 9>&- &
child=$!
echo "$child $(field $child 20)" >child.new
mv child.new child
echo started
exec >/dev/null # whoever waits for the answer has it

wait "$child"
code=$?
times >times
oom=0
[ "$code" = 137 ] && [ "$(kills)" != "$before" ] && oom=1
echo "$code $(date +%s) $oom" >exit.new
mv exit.new exit
rm -f done
