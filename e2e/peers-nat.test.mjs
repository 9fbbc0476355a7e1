// Two Rust peers in two homes behind real NATs: directly, through TURN, and when one of them gets into another network.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, describe, it } from 'node:test'
import { Lab, SERVER, TURN, until, whyNot } from './nat/lab.mjs'
import { promised } from './promise.mjs'
import { listening, makeCertificate, secret, startTurn } from './nat/services.mjs'
import { ourBinary } from './servers.mjs'

const examples = process.env.E2E_EXAMPLES ?? path.join(path.dirname(ourBinary), 'examples')
const soonMs = 30_000
const inStepMs = 5000
const reason = whyNot()

describe('Rust peers in two homes', { skip: reason, timeout: 300_000 }, () => {
  let lab
  before(async () => {
    lab = new Lab()
    makeCertificate(lab)
    writeFileSync(lab.file('turn.secret'), secret)
    const server = lab.spawn('server', 'server', [ourBinary, '--listen', `${SERVER}:80`, '--metrics-listen', '127.0.0.1:0'], {
      SIGNALING_ICE_STUN: `stun:${TURN}:3478`,
      SIGNALING_ICE_TURN: `turn:${TURN}:3478?transport=udp`,
      SIGNALING_ICE_SECRET_FILES: lab.file('turn.secret')
    })
    await Promise.all([startTurn(lab, ''), listening(lab, server, 'server.log', () => lab.log('server.log').includes('listening on'))])
  })
  after(() => lab?.close())

  let rooms = 0
  /** A peer in each home, who both see each other over this path. */
  async function meet (t, nat, way) {
    lab.nat(nat)
    const room = `room ${++rooms}`
    const [ana, ben] = [new Terminal(lab, 'a', 'ana', room), new Terminal(lab, 'b', 'ben', room)]
    t.after(() => Promise.all([ana, ben].map(terminal => terminal.end())))
    await Promise.all([ana.says(`ben (${way})`), ben.says(`ana (${way})`)])
    return [ana, ben]
  }

  async function converse (ana, ben, text) {
    ana.type(`${text}, from ana`)
    await ben.says(`${text}, from ana`)
    ben.type(`${text}, from ben`)
    await ana.says(`${text}, from ben`)
  }

  for (const [nat, way] of [['cone', 'Direct'], ['symmetric', 'Turn']]) {
    it(`talk behind NATs that are ${nat}, and say which way: ${way}`, async t => {
      await converse(...await meet(t, nat, way), 'hello')
    })
  }

  for (const [nat, way] of [['cone', 'Direct'], ['symmetric', 'Turn']]) {
    it(`keep their connection (${way}) when one of them gets into another network`, async t => {
      const [ana, ben] = await meet(t, nat, way)
      await converse(ana, ben, 'before')
      const channel = await ana.channel()
      t.after(moves(lab, 'b', 2))
      const moved = Date.now()
      await converse(ana, ben, 'after')
      promised(t, 'in step again', Date.now() - moved, inStepMs)
      assert.equal(await ana.channel(), channel, 'it is another connection')
    })
  }
})

/** The machine of a home gets another address, and the home another public one; returns what brings the old ones back. */
function moves (lab, home, number) {
  const inside = `192.168.${number}`
  const move = ([host, wan], [nextHost, nextWan]) => {
    lab.ip(home, `addr del ${inside}.${host}/24 dev eth`, `addr add ${inside}.${nextHost}/24 dev eth`, `route add default via ${inside}.1`)
    lab.ip(`router-${home}`, `addr del 203.0.113.${wan}/24 dev wan`, `addr add 203.0.113.${nextWan}/24 dev wan`)
  }
  const [old, next] = [[2, 100 + number], [77, 150 + number]]
  move(old, next)
  return () => move(next, old)
}

/** The example `annotate` in one of the homes. */
class Terminal {
  constructor (lab, home, name, room) {
    const program = lab.launcher(home, path.join(examples, 'annotate'))
    this.name = name
    this.said = []
    this.child = spawn(program, [name, room, '--signal', `ws://${SERVER}`, '--ice', `http://${SERVER}/ice`], { stdio: ['pipe', 'pipe', 'inherit'] })
    createInterface({ input: this.child.stdout }).on('line', line => this.said.push(line))
  }

  type (line) { this.child.stdin.write(`${line}\n`) }

  async says (text) {
    try {
      await until(text, soonMs, () => this.said.some(line => line.includes(text)))
    } catch (error) {
      throw new Error(`${this.name}: ${error.message}\n${this.said.join('\n')}`)
    }
  }

  /** The number of the data channel: a new connection has a new one. */
  async channel () {
    const from = this.said.length
    this.type('/status')
    const shown = () => this.said.slice(from).join(' ').match(/Channel\(\s*(\d+)/)?.[1]
    return until('the status', soonMs, shown)
  }

  async end () {
    if (this.child.exitCode !== null) return
    this.child.stdin.end()
    await once(this.child, 'exit')
  }
}
