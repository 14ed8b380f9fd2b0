package freshet

import "time"

// Every default and bound of the library that is not a field of its own.
const (
	defaultIdleTimeout = 5 * time.Minute
	defaultGrace       = 10 * time.Second
	defaultRetention   = 7 * 24 * time.Hour
	defaultShutdown    = 30 * time.Second
	defaultAttempts    = 3
	defaultMinDelay    = time.Second
	defaultMaxDelay    = time.Minute

	leaseTime     = 30 * time.Second // how long a run outlives its silent owner before another may adopt it
	leaseRenew    = 10 * time.Second
	leaseMargin   = 5 * time.Second // an owner that could not renew lets go this long before its lease ends
	ticketLease   = 30 * time.Second
	pollInterval  = time.Second // longest wait for work when every hint is lost
	sweepInterval = 5 * time.Second
	healTime      = 15 * time.Second // a queued task without a ticket for so long gets one
	healthTime    = 10 * time.Second
	healthFails   = 3 // checks in a row
	orphanGrace   = time.Minute
	stuckTime     = 30 * time.Second // an intent nobody has carried out for so long is taken up by the sweep
	bootTimeout   = 10 * time.Minute // of a workspace, from create to ready
	keepAliveTime = 15 * time.Minute // the provider's own time-out, while a dispatcher lives
	storeTimeout  = 10 * time.Second // of one call to the Store or Queue
	callTimeout   = time.Minute      // of one quick call to the provider
	slowTimeout   = 10 * time.Minute // of pause, resume, snapshot and moving files
	maxCrashes    = 5
	cpuRounds     = 3 // idle time-outs on end in which CPU time alone counts as progress

	claimBatch  = 512
	maxTenant   = 256 // bytes
	maxKey      = 256
	maxPayload  = 256 << 10
	maxResult   = 1 << 20
	maxState    = 1 << 20
	maxReason   = 4 << 10
	maxNote     = 1 << 10
	maxTail     = 4 << 10
	maxStdout   = 1 << 20
	maxLog      = 10 << 20
	logSegment  = 64 << 10
	logDelay    = 500 * time.Millisecond
	maxPriority = 1000
	maxBlob     = 1 << 30 // of a checkpoint or of artifacts
	maxMany     = 10_000  // tasks of one SubmitMany
)
