// The units as they are shipped, under the real systemd: readiness, reload, watchdog, drain and socket activation.
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { connect } from '../socket.mjs'
import { analyze, Machine, whyNot } from './machine.mjs'
import { folder, freePort, get, kit, missing, signalingServer, until } from './processes.mjs'

const patienceMs = 20_000
const shipped = name => readFileSync(path.join(kit, 'systemd', name), 'utf8')

describe('the units', { skip: missing('systemd-analyze') }, () => {
  it('leave a server that was taken over little to do: exposure under 2.0', () => {
    // Fails where the exposure is above the threshold, which counts tenths.
    const said = analyze('security', '--offline=true', '--threshold=20', path.join(kit, 'systemd/signaling-server.service'))
    assert.match(said, /Overall exposure level/)
  })

  it('are what systemd understands', () => {
    const at = folder()
    // The only thing that is not as shipped is where the server is, since it is not installed here.
    writeFileSync(path.join(at, 'signaling-server.service'), shipped('signaling-server.service').replaceAll('/usr/bin/signaling-server', signalingServer))
    writeFileSync(path.join(at, 'signaling-server.socket'), shipped('signaling-server.socket'))
    const units = ['service', 'socket'].map(kind => path.join(at, `signaling-server.${kind}`))
    assert.equal(analyze('verify', '--man=no', ...units), '')
  })
})

describe('under systemd', { skip: whyNot(), timeout: 120_000 }, () => {
  const unit = 'signaling-server.service'
  let machine, port

  before(async () => {
    port = await freePort()
    const inside = '/opt/server/signaling-server'
    // What the tests need to be quick.
    const forTests = `[Service]
      ExecStart=
      ExecStart=${/^ExecStart=(.*)$/m.exec(shipped(unit))[1].replace('/usr/bin/signaling-server', inside)}
      WatchdogSec=2s
      TimeoutStopSec=1s\n`
    machine = await Machine.boot({
      '/etc/systemd/system/signaling-server.service': shipped(unit),
      '/etc/systemd/system/signaling-server.service.d/test.conf': forTests,
      '/etc/systemd/system/signaling-server.socket': shipped('signaling-server.socket'),
      '/etc/systemd/system/signaling-server.socket.d/test.conf': `[Socket]\nListenStream=\nListenStream=127.0.0.1:${port}\n`,
      '/etc/sysusers.d/signaling-server.conf': shipped('signaling-server.sysusers')
    }, { '/opt/server': path.dirname(signalingServer) })
    await machine.run('systemd-sysusers')
    await machine.run('mkdir', '-p', '/etc/signaling-server')
    await configure({})
  })
  after(() => machine?.stop())

  const write = (name, text) => machine.run('sh', '-c', `printf %s '${text}' > /etc/signaling-server/${name}`)
  const configure = ({ tokens = 'first', window = '0s' }) => Promise.all([
    write('tokens', tokens),
    write('signaling.toml', `
      server.listen = "127.0.0.1:0"
      metrics.listen = "127.0.0.1:0"
      relay = { mode = "disk", data_dir = "/var/lib/signaling-server" }
      access = { mode = "tokens", tokens_file = "/etc/signaling-server/tokens", reload_interval = "1h" }
      drain = { ready_wait = "0s", window = "${window}" }`)
  ])
  // The last that was said.
  const address = async what => (await machine.journal(unit)).match(new RegExp(`${what} (\\S+)`, 'g')).at(-1).split(' ').at(-1)
  const accepts = async token => connect(`${await address('listening on')}/?token=${token}`)

  it('a start is done when clients can connect, as a user who may do nothing else', async () => {
    await machine.systemctl('start', unit)
    assert.equal(await machine.show(unit, 'ActiveState'), 'active')
    const ana = await accepts('first')
    const pid = await machine.show(unit, 'MainPID')
    const status = await machine.run('cat', `/proc/${pid}/status`)
    assert.match(status, /^CapEff:\s0+$/m)
    assert.match(status, /^Seccomp:\s2$/m)
    assert.doesNotMatch(status, /^Uid:\s0\s/m)
    assert.match(await machine.run('stat', '-c', '%U %a', '/var/lib/signaling-server/'), /^signaling-server 700/)
    await until('its status', patienceMs, async () => /^1 connections, 0 rooms$/.test(await machine.show(unit, 'StatusText')))
    await ana.close()
  })

  it('its metrics are complete in spite of all that is forbidden', async () => {
    const metrics = await get(await address('metrics on'))
    // The alerts need these, and a sandbox that hides too much of /proc would show 0.
    for (const series of ['process_open_fds', 'process_max_fds', 'process_resident_memory_bytes', 'process_start_time_seconds']) {
      assert.match(metrics, new RegExp(`^${series} [1-9]`, 'm'))
    }
  })

  it('a reload puts a changed token in force, and no connection notices', async () => {
    const ana = await accepts('first')
    const pid = await machine.show(unit, 'MainPID')
    await write('tokens', 'second')
    await machine.systemctl('reload', unit)
    const ben = await until('the new token', patienceMs, () => accepts('second'))
    await assert.rejects(accepts('first'))
    ana.subscribe('plan')
    await ana.settled()
    assert.equal(await machine.show(unit, 'MainPID'), pid)
    await Promise.all([ana.close(), ben.close()])
  })

  it('a stop waits for the drain, though that takes longer than the unit allows', async () => {
    await configure({ window: '3s' })
    await machine.systemctl('restart', unit)
    const clients = await Promise.all([1, 2, 3].map(() => accepts('first')))
    await machine.systemctl('stop', unit)
    assert.deepEqual(await Promise.all(clients.map(client => client.closed)), [1012, 1012, 1012])
    assert.equal(await machine.show(unit, 'Result'), 'success')
  })

  it('a server that gives no sign of life is started anew', async () => {
    await configure({})
    await machine.systemctl('start', unit)
    const pid = await machine.show(unit, 'MainPID')
    await machine.run('kill', '-STOP', pid)
    await until('another process', patienceMs, async () => {
      const now = await machine.show(unit, 'MainPID')
      return now !== '0' && now !== pid && await machine.show(unit, 'ActiveState') === 'active'
    })
    await (await accepts('first')).close()
    await machine.systemctl('stop', unit)
  })

  it('a socket unit starts the server for the first client, and holds the port while it restarts', async () => {
    await machine.systemctl('start', 'signaling-server.socket')
    assert.equal(await machine.show(unit, 'ActiveState'), 'inactive')
    const url = `ws://127.0.0.1:${port}/?token=first`
    await (await connect(url)).close()
    assert.equal(await machine.show(unit, 'ActiveState'), 'active')
    const restarted = machine.systemctl('restart', unit)
    let served = 0
    const failures = []
    for (let done = false; !done;) {
      const once = connect(url).then(client => client.close()).then(() => { served++ }, error => { failures.push(error.code ?? error.message) })
      done = await Promise.race([restarted.then(() => true), once])
    }
    // Whom the old process had accepted just then, it may still have sent away.
    assert.ok(!failures.includes('ECONNREFUSED'), failures.join(', '))
    assert.ok(served > 0)
  })
})
