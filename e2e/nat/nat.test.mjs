// Two browsers in two homes behind real NATs. What connects them is what /ice told them: credentials for the real
// coturn, which runs from a description that turn-config has rendered.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { Lab, SERVER, TURN, until, whyNot } from './lab.mjs'
import { Peer } from './peer.mjs'

const startMs = 30_000
const connectMs = 60_000
const hopelessMs = 15_000 // Who can connect does so within a second or two.
const secret = 'a-secret-that-only-this-lab-knows'
const target = process.env.CARGO_TARGET_DIR ?? path.join(import.meta.dirname, '../../target')
const signalingServer = process.env.SIGNALING_SERVER_BIN ?? path.join(target, 'debug/signaling-server')
const turnConfig = process.env.TURN_CONFIG_BIN ?? path.join(path.dirname(signalingServer), 'turn-config')

const reason = whyNot()

describe('two peers in two homes', { skip: reason && `skipped: ${reason}`, timeout: 300_000 }, () => {
  let lab, ana, ben

  before(async () => {
    for (const file of [signalingServer, turnConfig]) {
      if (!existsSync(file)) throw new Error(`${file} is missing: run "cargo build -p signaling-server -p turn-config" first`)
    }
    lab = new Lab()
    const trustedKey = makeCertificate(lab)
    await Promise.all([startTurn(lab), startServer(lab)])
    lab.nat('cone')
    const home = { site: `http://${SERVER}/`, trustedKey };
    [ana, ben] = await Promise.all(['a', 'b'].map(name => Peer.start(lab, name, home)))
  })

  after(async () => {
    await Promise.all([ana?.close(), ben?.close()])
    lab?.close()
  })

  it('behind ordinary NATs connect directly: the lab lets through what a network lets through', async () => {
    lab.nat('cone')
    await connect(ana, ben, onlyStun(await ana.ice()))
    assert.ok(await ana.connects(connectMs))
    assert.notEqual((await ana.path()).split(' ')[0], 'relay')
  })

  it('behind symmetric NATs do not connect without TURN', async () => {
    lab.nat('symmetric')
    await connect(ana, ben, onlyStun(await ana.ice()))
    assert.equal(await ana.connects(hopelessMs), false)
    for (const { found } of [ana, ben]) assert.deepEqual([...found].sort(), ['host', 'srflx'], 'STUN itself did not work')
  })

  it('behind symmetric NATs connect through TURN with what /ice gave them', async () => {
    lab.nat('symmetric')
    await connect(ana, ben)
    assert.ok(await ana.connects(connectMs))
    await converse(ana, ben)
    const paths = [await ana.path(), await ben.path()]
    assert.ok(paths.includes('relay over udp'), `the paths are ${paths}`)
  })

  it('where UDP is blocked connect over TLS on port 443', async () => {
    lab.nat('webOnly')
    await connect(ana, ben)
    assert.ok(await ana.connects(connectMs))
    await converse(ana, ben)
    assert.deepEqual([await ana.path(), await ben.path()], ['relay over tls', 'relay over tls'])
  })
})

const onlyStun = ({ iceServers }) => iceServers.filter(({ username }) => !username)

/** Each peer asks /ice for itself, unless it is told which servers to use. */
async function connect (ana, ben, servers) {
  await ana.begin(servers ?? (await ana.ice()).iceServers, ben)
  await ben.begin(servers ?? (await ben.ice()).iceServers, ana)
  await ana.answered(await ben.answer(await ana.offer()))
}

async function converse (ana, ben) {
  await ana.say('line 3 is wrong', connectMs)
  await ben.hears('line 3 is wrong', connectMs)
  await ben.say('fixed', connectMs)
  await ana.hears('fixed', connectMs)
}

async function startServer (lab) {
  writeFileSync(lab.file('turn.secret'), secret)
  const server = lab.spawn('server', 'server', [signalingServer, '--listen', `${SERVER}:80`, '--metrics-listen', '127.0.0.1:0'], {
    SIGNALING_ICE_STUN: `stun:${TURN}:3478`,
    SIGNALING_ICE_TURN: `turn:${TURN}:3478?transport=udp,turns:${TURN}:443?transport=tcp`,
    SIGNALING_ICE_SECRET_FILES: lab.file('turn.secret')
  })
  await listening(lab, server, 'server.log', () => lab.log('server.log').includes('listening on'))
}

async function startTurn (lab) {
  writeFileSync(lab.file('turn.toml'), `
    realm = "turn.test"
    [listen]
    addresses = ["${TURN}"]
    tls_port = 443
    [relay]
    addresses = ["${TURN}"]
    [tls]
    certificate = "cert.pem"
    key = "key.pem"
    [secrets]
    values = ["${secret}"]
    [process]
    log = "coturn.log"
    pid_file = "coturn.pid"
  `)
  execFileSync(turnConfig, ['render', lab.file('turn.toml'), '--output', lab.file('turnserver.conf')])
  const coturn = lab.spawn('turn', 'turn', ['turnserver', '-c', lab.file('turnserver.conf')])
  await listening(lab, coturn, 'coturn.log', () => relays(lab))
}

/** Whether coturn answers over UDP and over TLS, seen from the server. */
function relays (lab) {
  try {
    lab.exec('server', turnConfig, 'probe', `turn:${TURN}:3478`, `turns:${TURN}:443`,
      '--config', lab.file('turn.toml'), '--ca', lab.file('cert.pem'), '--timeout', '1s')
    return true
  } catch {
    return false
  }
}

function listening (lab, child, log, check) {
  return until(`${log} says it is ready`, startMs, () => {
    if (child.exitCode !== null) throw new Error(`it ended early:\n${lab.log(log)}`)
    return check()
  })
}

/** A certificate for coturn; returns the hash of its key, by which Chromium is told to trust it. */
function makeCertificate (lab) {
  const key = lab.file('key.pem')
  const certificate = lab.file('cert.pem')
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
    '-subj', '/CN=turn.test', '-addext', `subjectAltName=IP:${TURN}`, '-addext', 'basicConstraints=critical,CA:FALSE',
    '-keyout', key, '-out', certificate], { stdio: 'ignore' })
  const publicKey = execFileSync('openssl', ['pkey', '-in', key, '-pubout', '-outform', 'DER'])
  return execFileSync('openssl', ['dgst', '-sha256', '-binary'], { input: publicKey }).toString('base64')
}
