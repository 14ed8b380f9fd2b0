package line

import "time"

// add puts an item that is not in the line where its seq says.
func (l *Line) add(it Item) {
	f := l.flow(it)
	e := &entry{Item: it, flow: f}
	l.items[it.ID] = e
	l.peak = max(l.peak, len(l.items))
	l.ages.push(nanos(e.Pushed), e)
	f.band.count++
	if it.Due.After(l.now) && it.Due.After(it.Pushed) {
		l.delayed.push(nanos(e.Due), e)
		f.delayed.add(e, entryAside)
		return
	}
	l.enqueue(e)
}

// drop takes an item out of the line.
func (l *Line) drop(e *entry) {
	delete(l.items, e.ID)
	l.ages.remove(e)
	f := e.flow
	f.band.count--
	if e.queue == nil {
		l.delayed.remove(e)
		f.delayed.remove(e, entryAside)
	} else {
		l.dequeue(e)
	}
	if f.count() == 0 {
		l.forget(f)
	}
	if len(l.items) == 0 && l.peak > 1000 {
		l.renew()
	}
}

// promote puts what has become due in its place.
func (l *Line) promote(now time.Time) {
	if now.After(l.now) {
		l.now = now
	}
	for !l.delayed.empty() && !l.delayed.first().Due.After(now) {
		e := l.delayed.first()
		l.delayed.remove(e)
		e.flow.delayed.remove(e, entryAside)
		l.enqueue(e)
	}
}

// enqueue adds a due item to the queue of its agent.
func (l *Line) enqueue(e *entry) {
	f := e.flow
	key := queueKey{f, e.Agent}
	q := l.queues[key]
	if q == nil {
		q = &queue{flow: f, agent: e.Agent, items: heap[*entry]{pos: entryPos}}
		q.node.elem = q
		l.queues[key] = q
	} else if e.seq < q.head {
		f.queues.remove(&q.node)
	}
	q.items.push(e.seq, e)
	e.queue = q
	if q.items.first() == e {
		q.head = e.seq
		f.queues.insert(&q.node)
	}
	f.ready++
	l.settle(f)
}

// dequeue takes a due item out of the queue of its agent.
func (l *Line) dequeue(e *entry) {
	f, q := e.flow, e.queue
	if q.head == e.seq {
		f.queues.remove(&q.node)
	}
	q.items.remove(e)
	if q.items.empty() {
		delete(l.queues, queueKey{f, q.agent})
	} else if q.head == e.seq {
		q.head = q.items.first().seq
		f.queues.insert(&q.node)
	}
	f.ready--
	l.settle(f)
}

// flow finds or makes the flow of an item.
func (l *Line) flow(it Item) *flow {
	key := flowKey{it.Tenant, it.Priority}
	if f := l.flows[key]; f != nil {
		return f
	}
	b := l.bands[it.Priority]
	if b == nil {
		b = &band{priority: it.Priority, flows: tree[*flow]{before: earlierFlow}}
		b.node.elem = b
		l.bands[it.Priority] = b
	}
	t := l.tenants[it.Tenant]
	if t == nil {
		_, parked := l.parked[it.Tenant]
		t = &tenant{name: it.Tenant, weight: it.Weight, parked: parked}
		l.tenants[it.Tenant] = t
	}
	f := &flow{band: b, tenant: t, queues: tree[*queue]{before: olderQueue}}
	f.node.elem = f
	b.members.add(f, flowInBand)
	t.flows.add(f, flowInTenant)
	l.flows[key] = f
	return f
}

// forget drops a flow without items, and its band and its tenant if they have no other.
func (l *Line) forget(f *flow) {
	b, t := f.band, f.tenant
	delete(l.flows, flowKey{t.name, b.priority})
	b.members.remove(f, flowInBand)
	t.flows.remove(f, flowInTenant)
	if len(b.members) == 0 {
		delete(l.bands, b.priority)
	}
	if len(t.flows) == 0 {
		delete(l.tenants, t.name)
	}
}

// settle brings a flow into its band's order, or out of it, as it has become.
func (l *Line) settle(f *flow) {
	active := f.ready > 0 && !f.tenant.parked
	if active == f.active {
		return
	}
	b := f.band
	if active {
		f.tag, f.credit = f.next(), 0
		f.since = f.queues.first().head
		if b.flows.empty() {
			l.active.insert(&b.node)
		}
		b.flows.insert(&f.node)
	} else {
		b.flows.remove(&f.node)
		if b.flows.empty() {
			l.active.remove(&b.node)
		}
	}
	f.active = active
}

// retag moves an active flow to another tag.
func (l *Line) retag(f *flow, tag float64) {
	f.band.flows.remove(&f.node)
	f.tag = tag
	f.band.flows.insert(&f.node)
}
