// The Debian package: built by cargo-deb, installed by dpkg on a machine with the real systemd, upgraded, and taken away.
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { connect } from '../socket.mjs'
import { Machine, whyNot } from './machine.mjs'
import { folder, kit, missing, run, signalingServer } from './processes.mjs'

const unit = 'signaling-server.service'
const profile = path.basename(path.dirname(signalingServer))
const buildMs = 50_000

function lacking () {
  if (!['debug', 'release'].includes(profile)) return `${signalingServer} is not where cargo puts what it builds`
  return missing('cargo-deb', 'dpkg') || whyNot()
}

// The machine has this system's /usr, which nobody may write to: dpkg works on a layer above it, and on a copy of what
// it knows is installed. Where this system is itself a container, it may forbid packages to start anything.
const prepare = `
  systemd-sysusers
  mkdir -p /run/layer /var/lib /var/log /etc
  mount -t tmpfs layer /run/layer
  mkdir /run/layer/upper /run/layer/work
  mount -t overlay usr -o lowerdir=/usr,upperdir=/run/layer/upper,workdir=/run/layer/work /usr
  cp -a /opt/dpkg /var/lib/dpkg
  rm -f /var/lib/dpkg/lock* /var/lib/dpkg/statoverride /usr/sbin/policy-rc.d`

describe('the Debian package', { skip: lacking(), timeout: 120_000 }, () => {
  const packages = folder()
  let machine

  before(async () => {
    // As what is released is built, of the command that these tests are about.
    for (const version of ['1.0.0-1', '1.0.1-1']) {
      await run('cargo', [
        'deb', '-p', 'signaling-server', '--no-build', '--locked', '--fast', '--strip',
        '--profile', profile === 'debug' ? 'dev' : profile, '--deb-version', version, '--output', packages
      ], { cwd: path.join(kit, '..'), env: { ...process.env, CARGO_TARGET_DIR: path.resolve(signalingServer, '../..') }, timeout: buildMs })
    }
    machine = await Machine.boot({}, { '/opt/packages': packages, '/opt/dpkg': '/var/lib/dpkg' })
    await machine.run('sh', '-ec', prepare)
  })
  after(() => machine?.stop())

  const install = version => {
    const name = readdirSync(packages).find(file => file.startsWith(`signaling-server_${version}_`))
    return machine.run('dpkg', '--install', '--force-confold', `/opt/packages/${name}`)
  }
  const listening = async () => (await machine.journal(unit)).match(/listening on (\S+)/g).at(-1).split(' ').at(-1)
  const shell = (...lines) => machine.run('sh', '-ec', lines.join('\n'))

  it('brings the command, the unit, its user, and a configuration that others may not read', async () => {
    await install('1.0.0-1')
    assert.match(await machine.run('signaling-server', '--version'), /^signaling-server /)
    assert.equal((await machine.run('stat', '-c', '%U:%G %a', '/etc/signaling-server/signaling.toml')).trim(), 'root:signaling-server 640')
    await machine.run('signaling-server', 'check-config', '--config', '/etc/signaling-server/signaling.toml')
    // Nobody is let in before the operator has looked at the configuration.
    assert.equal(await machine.show(unit, 'ActiveState'), 'inactive')
    assert.equal(await machine.show(unit, 'UnitFileState'), 'disabled')
  })

  it('starts with the configuration that it brings, and keeps documents', async () => {
    await shell('printf "\\n[server]\\nlisten = \\"127.0.0.1:0\\"\\n[metrics]\\nlisten = \\"127.0.0.1:0\\"\\n" >> /etc/signaling-server/signaling.toml')
    await machine.systemctl('start', unit)
    await (await connect(await listening())).close()
    assert.match(await machine.run('ls', '/var/lib/signaling-server'), /^relay\.sqlite$/m)
  })

  it('is upgraded: the service is the new one, its clients are told to come again, and what was configured stays', async () => {
    const pid = await machine.show(unit, 'MainPID')
    const client = await connect(await listening())
    await install('1.0.1-1')
    assert.equal(await client.closed, 1012)
    assert.equal(await machine.show(unit, 'ActiveState'), 'active')
    assert.notEqual(await machine.show(unit, 'MainPID'), pid)
    assert.match(await machine.run('cat', '/etc/signaling-server/signaling.toml'), /127\.0\.0\.1:0/)
    assert.match(await machine.run('dpkg', '--status', 'signaling-server'), /^Version: 1\.0\.1-1$/m)
    await (await connect(await listening())).close()
  })

  it('leaves what people wrote, even when it is purged', async () => {
    await machine.run('dpkg', '--purge', 'signaling-server')
    assert.notEqual(await machine.show(unit, 'ActiveState'), 'active')
    await assert.rejects(machine.run('test', '-e', '/usr/bin/signaling-server'))
    await assert.rejects(machine.run('test', '-e', '/etc/signaling-server/signaling.toml'))
    assert.ok(Number(await machine.run('stat', '-c', '%s', '/var/lib/signaling-server/relay.sqlite')) > 0)
  })
})
