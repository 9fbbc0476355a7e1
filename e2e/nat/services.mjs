// What runs in the lab: the real coturn, from a description that turn-config renders, and the signaling server that
// hands out its credentials.
import { execFileSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { SERVER, TURN, until } from './lab.mjs'
import { Peer } from './peer.mjs'

const startMs = 30_000
export const secret = 'a-secret-that-only-this-lab-knows'
const target = process.env.CARGO_TARGET_DIR ?? path.join(import.meta.dirname, '../../target')
export const signalingServer = process.env.E2E_SIGNALING_SERVER ?? path.join(target, 'debug/signaling-server')
const turnConfig = process.env.TURN_CONFIG_BIN ?? path.join(path.dirname(signalingServer), 'turn-config')

/** Starts coturn, the signaling server and a browser in each home. */
export async function startServices (lab, describeTurn = '') {
  for (const file of [signalingServer, turnConfig]) {
    if (!existsSync(file)) throw new Error(`${file} is missing: run "cargo build -p signaling-server -p turn-config" first`)
  }
  const trustedKey = makeCertificate(lab)
  await Promise.all([startTurn(lab, describeTurn), startServer(lab)])
  lab.nat('cone')
  const home = { site: `http://${SERVER}/`, trustedKey }
  return Promise.all(['a', 'b'].map(name => Peer.start(lab, name, home)))
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

export async function startTurn (lab, more) {
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
    ${more}
  `)
  execFileSync(turnConfig, ['render', lab.file('turn.toml'), '--output', lab.file('turnserver.conf')])
  const coturn = lab.coturn = lab.spawn('turn', 'turn', ['turnserver', '-c', lab.file('turnserver.conf')])
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

export function listening (lab, child, log, check) {
  return until(`${log} says it is ready`, startMs, () => {
    if (child.exitCode !== null) throw new Error(`it ended early:\n${lab.log(log)}`)
    return check()
  })
}

/** A certificate for coturn; returns the hash of its key, by which Chromium is told to trust it. */
export function makeCertificate (lab) {
  const key = lab.file('key.pem')
  const certificate = lab.file('cert.pem')
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
    '-subj', '/CN=turn.test', '-addext', `subjectAltName=IP:${TURN}`, '-addext', 'basicConstraints=critical,CA:FALSE',
    '-keyout', key, '-out', certificate], { stdio: 'ignore' })
  const publicKey = execFileSync('openssl', ['pkey', '-in', key, '-pubout', '-outform', 'DER'])
  return execFileSync('openssl', ['dgst', '-sha256', '-binary'], { input: publicKey }).toString('base64')
}
