// What a relayed data channel costs the TURN server: bytes on its wire and its own CPU time.
//
//   node e2e/nat/cost.mjs
import { readFileSync } from 'node:fs'
import { execFileSync } from 'node:child_process'
import { Lab, whyNot } from './lab.mjs'
import { connect } from './peer.mjs'
import { startServices } from './services.mjs'

const seconds = 20
const connectMs = 30_000
const ticksPerSecond = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }))
// What each side sends: so many messages a second of so many bytes.
const loads = [
  ['nothing', 0, 0],
  ['20 edits a second of 200 bytes each way', 20, 200],
  ['1 MB a second each way', 64, 16_384]
]

const reason = whyNot()
if (reason) throw new Error(reason)
const lab = new Lab()
let peers = []
try {
  const [ana, ben] = peers = await startServices(lab)
  for (const kind of ['symmetric', 'webOnly']) {
    lab.nat(kind)
    await connect(ana, ben)
    if (!await ana.connects(connectMs) || !await ben.connects(connectMs)) throw new Error('the peers do not connect')
    console.log(`${kind}: ${await ana.path()} to ${await ben.path()}`)
    for (const [name, rate, size] of loads) console.log(`  ${name}: ${await measure(ana, ben, rate, size)}`)
  }
} finally {
  await Promise.all(peers.map(peer => peer.close()))
  lab.close()
}

async function measure (ana, ben, rate, size) {
  const before = reading()
  const heard = await Promise.all([ana, ben].map(peer => peer.talk(rate, size, seconds)))
  const after = reading()
  const perSecond = key => (after[key] - before[key]) / seconds
  const lost = rate * seconds * 2 - heard[0] - heard[1]
  return `${(perSecond('received') / 1000).toFixed(1)} kB/s in, ${(perSecond('sent') / 1000).toFixed(1)} kB/s out, ` +
    `${(perSecond('cpu') * 100).toFixed(1)} % of a core` + (lost > 0 ? `, ${lost} messages still under way` : '')
}

/** What the TURN server's network card and the process have done so far. */
function reading () {
  const counter = name => Number(lab.exec('turn', 'cat', `/sys/class/net/eth/statistics/${name}_bytes`))
  const fields = readFileSync(`/proc/${lab.coturn.pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ')
  return { received: counter('rx'), sent: counter('tx'), cpu: (Number(fields[11]) + Number(fields[12])) / ticksPerSecond }
}
