// The official client against obliensim, whose address is in OBLIENSIM_URL. It is run by oblien_sdk_test.go.
import assert from 'node:assert/strict';
import { after, afterEach, describe, test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import {
  Oblien, OblienError, AuthenticationError, ConflictError, NotFoundError, PaymentRequiredError, RateLimitError, ValidationError,
} from 'oblien';
import { Runtime } from 'oblien/runtime';

const baseUrl = process.env.OBLIENSIM_URL;
const client = new Oblien({ clientId: 'oblien_sim', clientSecret: 'sk_sim', baseUrl });
const admin = (method, path, body) => fetch(baseUrl + path, { method, body: body && JSON.stringify(body) });
const fault = (f) => admin('POST', '/_sim/faults', f);
const text = (chunks) => Buffer.concat(chunks.map((c) => Buffer.from(c, 'base64'))).toString();

// ready makes a workspace quickly: the client's own wait looks every two seconds.
async function ready(params = {}) {
  const ws = client.workspace((await client.workspaces.create({ image: 'oblien/ubuntu:24.04', ...params, wait_ready: false })).id);
  for (;;) {
    const data = await ws.get();
    if (data.ready) return ws;
    assert.notEqual(data.provisioning.state, 'failed');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function runtime(ws) {
  await ws.network.update({ public_access: true, ingress_ports: [9990] });
  const { enabled } = await ws.apiAccess.status();
  const { token } = enabled ? await ws.apiAccess.getToken() : await ws.apiAccess.enable();
  return new Runtime({ token, baseUrl });
}

async function gone(id) {
  for (;;) {
    try {
      await client.workspaces.get(id);
    } catch (error) {
      assert.ok(error instanceof NotFoundError);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

afterEach(() => admin('DELETE', '/_sim/faults'));
after(async () => {
  for (const { id } of (await client.workspaces.list({ limit: 100 })).workspaces) await client.workspaces.delete(id);
});

describe('workspaces', () => {
  test('create waits until it is ready', async () => {
    const data = await client.workspaces.create({
      name: 'first', slug: 'first-one', image: 'oblien/ubuntu:24.04', mode: 'temporary', cpus: 2, memory_mb: 1024,
      config: { ttl: '1h', ttl_action: 'remove' },
    });
    assert.equal(data.ready, true);
    assert.equal(data.name, 'first');
    assert.equal(data.status, 'active');
    assert.equal(data.info.status, 'running');
    assert.equal(data.provisioning.state, 'ready');
    assert.deepEqual([data.resources.cpus, data.resources.memory_mb], [2, 1024]);
    assert.equal(data.lifecycle.ttl, 3600);
    assert.equal((await client.workspaces.get('first-one')).id, data.id);
    assert.equal((await client.workspaces.waitUntilReady(data.id)).id, data.id);
  });

  test('one idempotency key makes one workspace', async () => {
    const params = { image: 'oblien/ubuntu:24.04', idempotency_key: 'once', wait_ready: false };
    const [a, b] = await Promise.all([client.workspaces.create(params), client.workspaces.create(params)]);
    assert.equal(a.id, b.id);
    await assert.rejects(client.workspaces.create({ ...params, memory_mb: 128 }), ConflictError);
  });

  test('a failed creation is reported, and tried again', async () => {
    const { id } = await client.workspaces.create({ image: 'sim/broken', wait_ready: false });
    await assert.rejects(client.workspaces.waitUntilReady(id), (e) => e instanceof OblienError && e.code === 'CREATE_FAILED' && e.details.workspace_id === id);
    await client.workspaces.retryCreation(id);
    assert.equal((await client.workspaces.waitUntilReady(id)).ready, true);
  });

  test('list comes in pages', async () => {
    const made = await Promise.all([1, 2, 3].map(() => client.workspaces.create({ image: 'oblien/ubuntu:24.04', wait_ready: false })));
    const seen = new Set();
    for (let page = 1; ; page++) {
      const part = await client.workspaces.list({ page, limit: 2 });
      assert.equal(part.page, page);
      part.workspaces.forEach((w) => seen.add(w.id));
      if (page * part.limit >= part.total) break;
    }
    made.forEach((w) => assert.ok(seen.has(w.id)));
    assert.equal((await client.workspaces.list({ mode: 'permanent', limit: 1 })).workspaces[0].mode, 'permanent');
  });

  test('update, metadata, details of the machine', async () => {
    const ws = await ready();
    assert.equal((await ws.update({ name: 'renamed' })).name, 'renamed');
    await ws.metadata.update({ metadata: { a: '1', b: '2' } });
    await ws.metadata.patch({ metadata: { b: '3' } });
    assert.deepEqual(await ws.metadata.get(), { a: '1', b: '3' });
    assert.ok((await ws.metrics.stats()).memoryTotalMB > 0);
    assert.equal((await ws.metrics.info()).info.status, 'running');
  });

  test('delete is accepted, and then it is gone', async () => {
    const ws = await ready();
    assert.deepEqual(await ws.delete(), { success: true, accepted: true });
    await gone(ws.id);
    await assert.rejects(ws.delete(), NotFoundError);
  });

  test('delete cancels a creation', async () => {
    await fault({ method: 'GET', path: '/workspace/', delay: 100e6, times: 1 });
    const { id } = await client.workspaces.create({ image: 'oblien/ubuntu:24.04', wait_ready: false });
    await client.workspaces.delete(id);
    await assert.rejects(client.workspaces.waitUntilReady(id), (e) => e.code === 'WORKSPACE_CREATION_CANCELLED' || e instanceof NotFoundError);
    await gone(id);
  });

  test('quota', async () => {
    const quota = await client.workspaces.getQuota();
    assert.equal(quota.maxWorkspaces, quota.max_sandboxes);
    assert.equal(quota.maxWorkspaces, 60);
    assert.ok(quota.currentWorkspaces > 0);
  });
});

describe('power', () => {
  const state = async (ws) => (await ws.get()).info.status;

  test('pause and resume keep processes', async () => {
    const ws = await ready();
    const rt = await runtime(ws);
    const stream = rt.exec.stream(['sh', '-c', 'echo before; sleep 30'])[Symbol.asyncIterator]();
    const { value: { task_id: id } } = await stream.next();
    await ws.pause();
    assert.equal(await state(ws), 'paused');
    await assert.rejects(ws.start(), ConflictError);
    await assert.rejects(rt.exec.list(), (e) => e.code === 'VM_UNAVAILABLE' && e.status === 503);
    await ws.resume();
    assert.equal(await state(ws), 'running');
    assert.equal((await rt.exec.get(id)).status, 'running');
    await assert.rejects(ws.resume(), ConflictError);
    await rt.exec.kill(id);
  });

  test('stop keeps files, and makes old tokens invalid', async () => {
    const ws = await ready();
    const rt = await runtime(ws);
    const { home } = await rt.info();
    await rt.files.write({ fullPath: home + '/kept.txt', content: 'kept' });
    await ws.stop();
    await ws.stop();
    assert.equal(await state(ws), 'stopped');
    assert.equal((await ws.get()).info.user_requested_stop, true);
    await ws.start();
    await ws.start();
    await assert.rejects(rt.files.read({ filePath: home + '/kept.txt' }), AuthenticationError);
    const again = await runtime(ws);
    assert.equal((await again.files.read({ filePath: home + '/kept.txt' })).content, 'kept');
    await ws.restart();
    assert.equal(await state(ws), 'running');
  });

  test('snapshot and restore', async () => {
    const ws = await ready();
    await assert.rejects(ws.snapshots.restore(), ConflictError);
    let rt = await runtime(ws);
    const path = (await rt.info()).home + '/a.txt';
    await rt.files.write({ fullPath: path, content: 'before' });
    await ws.snapshots.create();
    await rt.files.write({ fullPath: path, content: 'after' });
    await ws.snapshots.restore();
    rt = await runtime(ws);
    assert.equal((await rt.files.read({ filePath: path })).content, 'before');
    await ws.snapshots.create({ after: 'stop' });
    assert.equal(await state(ws), 'suspended');
    await ws.snapshots.restore();
    assert.equal(await state(ws), 'running');
  });

  test('time-out, ping and lifecycle', async () => {
    const ws = await ready();
    await ws.lifecycle.makeTemporary({ ttl: '1h', ttl_action: 'remove' });
    const first = await ws.lifecycle.get();
    assert.deepEqual([first.mode, first.ttl, first.ttl_action], ['temporary', 3600, 'remove']);
    await ws.ping({ ttl_seconds: 7200 });
    const later = await ws.lifecycle.get();
    assert.ok(Date.parse(later.ttl_expires_at) > Date.parse(first.ttl_expires_at) + 3000e3);
    await ws.lifecycle.makePermanent();
    assert.equal((await ws.lifecycle.get()).ttl_expires_at, null);
    await ws.lifecycle.makeTemporary({ ttl: 1, ttl_action: 'remove' });
    await gone(ws.id);
  });

  test('resources', async () => {
    const ws = await ready({ memory_mb: 256 });
    const updated = await ws.resources.update({ memory_mb: 512 });
    assert.deepEqual([updated.updated, updated.relaunched], [{ memory_mb: 512 }, false]);
    assert.equal((await ws.resources.update({ cpus: 2, apply: true })).relaunched, true);
    assert.equal((await ws.resources.get()).cpus, 2);
    await assert.rejects(ws.resources.update({ disk_size_mb: 1 }), ValidationError);
  });
});

describe('runtime', () => {
  test('exec runs a command', async () => {
    const rt = await runtime(await ready());
    assert.equal(await rt.health(), true);
    const task = await rt.exec.run(['sh', '-c', 'echo out; echo err >&2; exit 3']);
    assert.deepEqual([task.status, task.exit_code, task.stdout, task.stderr], ['exited', 3, 'out\n', 'err\n']);
    assert.equal((await rt.exec.get(task.id)).exit_code, 3);
    assert.ok((await rt.exec.list()).some((t) => t.id === task.id));
    assert.equal((await rt.exec.run(['echo $((1+1))'], { execMode: 'shell' })).stdout, '2\n');
    await rt.exec.deleteAll();
    assert.deepEqual(await rt.exec.list(), []);
    assert.equal((await rt.exec.run(['sleep', '20'], { timeoutSeconds: 1 })).exit_code, 137);
  });

  test('exec streams', async () => {
    const rt = await runtime(await ready());
    const got = { stdout: [], stderr: [] };
    let exit, id;
    for await (const ev of rt.exec.stream(['sh', '-c', 'echo out; echo err >&2; printf "\\377\\000"; exit 4'])) {
      if (ev.event === 'task_id') id = ev.task_id;
      else if (ev.event === 'exit') exit = ev.exit_code;
      else got[ev.event].push(ev.data);
    }
    assert.equal(exit, 4);
    assert.equal(text(got.stderr), 'err\n');
    assert.deepEqual(Buffer.concat(got.stdout.map((c) => Buffer.from(c, 'base64'))), Buffer.from('out\n\xff\0', 'latin1'));
    const again = [];
    for await (const ev of rt.exec.subscribe(id)) again.push(ev.event);
    assert.equal(again.at(-1), 'exit');
  });

  test('exec refuses too many tasks', async () => {
    const rt = await runtime(await ready());
    const streams = [];
    for (let i = 0; i < 8; i++) {
      const s = rt.exec.stream(['sleep', '30'])[Symbol.asyncIterator]();
      await s.next();
      streams.push(s);
    }
    await assert.rejects(rt.exec.run(['true']), RateLimitError);
    await rt.exec.deleteAll();
  });

  test('files', async () => {
    const rt = await runtime(await ready());
    const { home } = await rt.info();
    await rt.files.write({ fullPath: home + '/dir/a.txt', content: 'a', createDirs: true });
    await rt.files.write({ fullPath: home + '/dir/a.txt', content: 'b', append: true });
    await rt.files.mkdir({ path: home + '/dir/sub' });
    assert.equal((await rt.files.read({ filePath: home + '/dir/a.txt' })).content, 'ab');
    assert.equal((await rt.files.stat({ path: home + '/dir/sub' })).type, 'directory');
    const { entries, count } = await rt.files.list({ dirPath: home + '/dir' });
    assert.deepEqual([count, entries.map((e) => e.name).sort()], [2, ['a.txt', 'sub']]);
    const streamed = [];
    for await (const e of rt.files.stream({ dirPath: home + '/dir' })) streamed.push(e.name);
    assert.deepEqual(streamed.sort(), ['a.txt', 'sub']);
    await rt.files.delete({ path: home + '/dir/a.txt' });
    await assert.rejects(rt.files.read({ filePath: home + '/dir/a.txt' }), NotFoundError);
    await assert.rejects(rt.files.read({ filePath: '/etc/hostname' }), (e) => e.code === 'forbidden');
  });

  test('archives', async () => {
    const rt = await runtime(await ready());
    const { home } = await rt.info();
    await rt.files.write({ fullPath: home + '/from/a.txt', content: 'moved', createDirs: true });
    const packed = Buffer.from(await (await rt.transfer.download({ paths: [home + '/from'] })).arrayBuffer());
    assert.ok(gunzipSync(packed).includes('moved'));
    const result = await rt.transfer.upload({ dest: home + '/to', body: packed });
    assert.equal(result.files_extracted, 2);
    assert.equal((await rt.files.read({ filePath: home + '/to/from/a.txt' })).content, 'moved');
    await assert.rejects(rt.transfer.download({ paths: [home + '/none'] }), NotFoundError);
    await assert.rejects(rt.transfer.upload({ dest: home, body: gzipSync('no archive') }), OblienError);
  });

  test('workloads', async () => {
    const ws = await ready();
    const made = await ws.workloads.create({ cmd: ['sh', '-c', 'echo $GREETING; sleep 30'], name: 'greeter', env: ['GREETING=hello'] });
    assert.equal(made.status, 'running');
    assert.ok((await ws.workloads.list()).some((w) => w.id === made.id));
    for await (const entry of ws.workloads.logsStream(made.id)) {
      assert.deepEqual([entry.stream, entry.data], ['stdout', 'hello\n']);
      break;
    }
    await ws.workloads.stop(made.id);
    assert.equal((await ws.workloads.status(made.id)).status, 'stopped');
    await ws.workloads.start(made.id);
    assert.equal((await ws.workloads.get(made.id)).status, 'running');
    await ws.workloads.delete(made.id);
    await assert.rejects(ws.workloads.get(made.id), NotFoundError);
    const flaky = await ws.workloads.create({ cmd: ['false'], restart_policy: 'on-failure', max_restarts: 2 });
    for (;;) {
      const now = await ws.workloads.status(flaky.id);
      if (now.status === 'failed') { assert.equal(now.restarts, 2); break; }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.ok(Array.isArray((await ws.workloads.logs(flaky.id)).logs));
    await ws.workloads.deleteAll();
    assert.deepEqual(await ws.workloads.list(), []);
  });
});

describe('namespaces and tokens', () => {
  test('a namespace has limits, can be suspended, and its token sees nothing else', async () => {
    const { created, data } = await client.namespaces.ensure({ name: 'team', resource_limits: { max_workspaces: 1 } });
    assert.equal(created, true);
    assert.equal((await client.namespaces.ensure({ name: 'team' })).created, false);
    await assert.rejects(client.workspaces.create({ namespace: 'nobody', wait_ready: false }), NotFoundError);
    const elsewhere = await ready();
    const ws = await ready({ namespace: 'team' });
    await assert.rejects(client.workspaces.create({ namespace: 'team', wait_ready: false }), (e) => e instanceof ConflictError && e.code === 'NAMESPACE_LIMIT_REACHED');

    const { token } = await client.tokens.create({ scope: 'namespace', namespace: 'team', ttl: 600 });
    const scoped = new Oblien({ token, baseUrl });
    assert.deepEqual((await scoped.workspaces.list()).workspaces.map((w) => w.id), [ws.id]);
    await assert.rejects(scoped.workspaces.get(elsewhere.id), NotFoundError);
    await assert.rejects(scoped.tokens.create({ scope: 'namespace', namespace: 'team' }), (e) => e.code === 'forbidden' && e.status === 403);

    await client.namespaces.suspend(data.id);
    await assert.rejects(scoped.workspaces.restart(ws.id), (e) => e.code === 'namespace_suspended');
    await scoped.workspaces.stop(ws.id);
    await client.namespaces.activate(data.id);
    assert.equal((await client.namespaces.get('team')).data.status, 'active');
    await scoped.workspaces.delete(ws.id);
    await gone(ws.id);
  });
});

describe('errors', () => {
  const refused = async (Class, check, f) => {
    await fault({ method: 'GET', path: '/workspace/quota$', times: 1, message: 'no', ...f });
    await assert.rejects(client.workspaces.getQuota(), (e) => {
      assert.ok(e instanceof Class, `${e.name} is no ${Class.name}`);
      assert.match(e.requestId, /^req_/);
      for (const [k, v] of Object.entries(check)) assert.equal(e[k], v);
      return true;
    });
  };

  test('credentials', async () => {
    for (const [clientSecret, code] of [['wrong', 'invalid_credentials'], ['', 'missing_credentials']]) {
      const other = new Oblien({ clientId: 'oblien_sim', clientSecret, baseUrl });
      await assert.rejects(other.workspaces.list(), (e) => e instanceof AuthenticationError && e.code === code && e.status === 401);
    }
    await assert.rejects(new Oblien({ token: 'none', baseUrl }).workspaces.list(), AuthenticationError);
  });

  test('limits of the account', async () => {
    const made = [];
    await assert.rejects(async () => {
      for (;;) made.push(await client.workspaces.create({ image: 'oblien/ubuntu:24.04', wait_ready: false }));
    }, (e) => e instanceof ConflictError && e.code === 'SANDBOX_LIMIT_REACHED' && e.status === 409);
    await Promise.all(made.map((w) => client.workspaces.delete(w.id)));
    await Promise.all(made.map((w) => gone(w.id)));
    await assert.rejects(client.workspaces.create({ memory_mb: 1e6, wait_ready: false }), (e) => e.code === 'quota_exceeded' && e.status === 403);
    await assert.rejects(client.workspaces.create({ image: 'missing', wait_ready: false }), (e) => e.code === 'invalid_image' && e.status === 400);
    await assert.rejects(client.workspaces.create({ slug: 'No Slug', wait_ready: false }), ValidationError);
  });

  test('each class of the client', async () => {
    await refused(AuthenticationError, { status: 401 }, { status: 401, code: 'unauthorized' });
    await refused(PaymentRequiredError, { status: 402, code: 'payment_required' }, { status: 402, code: 'payment_required' });
    await refused(NotFoundError, { status: 404 }, { status: 404, code: 'not_found' });
    await refused(ConflictError, { status: 409 }, { status: 409, code: 'conflict' });
    await refused(ConflictError, { status: 200, code: 'POOL_LIMIT_REACHED' }, { status: 200, code: 'POOL_LIMIT_REACHED' });
    await refused(ValidationError, { status: 422 }, { status: 422, code: 'validation_error' });
    await refused(RateLimitError, { status: 429 }, { status: 429, code: 'rate_limited', retry_after: 1e9 });
    await refused(OblienError, { status: 503, code: 'quota_unavailable' }, { status: 503, code: 'quota_unavailable' });
    await refused(PaymentRequiredError, { status: 402, code: 'RUNNING_POOL_REACHED' }, { status: 402, code: 'RUNNING_POOL_REACHED' });
  });

  test('a lost connection', async () => {
    await fault({ method: 'GET', path: '/workspace/quota$', times: 1, drop: 'before' });
    await assert.rejects(client.workspaces.getQuota(), TypeError);
    await fault({ method: 'POST', path: '/workspace$', times: 1, drop: 'after' });
    const params = { image: 'oblien/ubuntu:24.04', slug: 'made-anyway', idempotency_key: 'made-anyway', wait_ready: false };
    await assert.rejects(client.workspaces.create(params), TypeError);
    assert.equal((await client.workspaces.create(params)).id, (await client.workspaces.get('made-anyway')).id);
  });
});
