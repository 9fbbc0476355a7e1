// The whole story between two homes behind NATs: an agent and a reviewer in the one, a reviewer in the other, and servers
// that die and return. Where namespaces are not allowed, story.test.mjs and review.test.mjs tell the same on loopback.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, describe, it } from 'node:test'
import { plan } from '../peer-sdk/web/examples/story/agent.mjs'
import { Lab, SERVER, whyNot } from './nat/lab.mjs'
import { promised, waitFor } from './promise.mjs'
import { until } from './relay/peers.mjs'
import { annotate, Meeting, signal } from './review/lab.mjs'

const reason = whyNot()
const soonMs = 1000
const deadMs = 8000
const wait = ms => new Promise(resolve => setTimeout(resolve, ms))

describe('a plan from an agent in one home to a reviewer in another', { skip: reason, timeout: 600_000 }, () => {
  let lab, meeting, folder, ana, ben, agent, id, link, shared

  before(async () => {
    lab = new Lab({ lines: true })
    folder = await mkdtemp(path.join(os.tmpdir(), 'story-'))
    meeting = await Meeting.start(lab)
  })
  after(async () => {
    await agent?.stop().catch(() => {})
    await meeting?.close()
    lab?.close()
    await rm(folder, { recursive: true, force: true })
  })

  /** Without the hub, which nobody elsewhere can dial; with the relay if there is one. */
  function toShare (link, relay) {
    const url = new URL(link)
    const address = new URLSearchParams(url.hash.slice(1))
    address.delete('hub')
    if (relay) address.set('hub', relay)
    url.hash = address.toString()
    return String(url)
  }

  async function untilListed (text) {
    for (const deadline = Date.now() + 20_000; Date.now() < deadline;) {
      const { annotations } = await agent.call('list_annotations', { plan_id: id })
      if (annotations.some(note => note.text === text)) return
      await wait(20)
    }
    assert.fail(`the agent does not list ${text}`)
  }

  const count = (reviewers, number, ms) => Promise.all(reviewers.map(reviewer => reviewer.counts(number, ms)))
  const startAgent = async t => { agent = await meeting.agent({ after: () => {} }, 'a', path.join(folder, 'plans'), ['--hub-only']) }

  it('is opened from the hub beside the agent, and by its link elsewhere; both see two reviewers, and the agent', async t => {
    await startAgent(t)
    const created = await agent.call('create_plan', plan)
    id = created.plan_id
    link = created.link
    shared = toShare(link)
    ana = await meeting.open('a', link, 'Ana')
    await ana.hasPlan()
    ben = await meeting.open('b', shared, 'Ben')
    await ben.hasPlan()
    await count([ana, ben], 2)
    await Promise.all([ana.seesAgent(), ben.seesAgent()])
    assert.match(await ana.says('Hub'), /^Connected/)
    await ben.until('Ana by a data channel', () => window.review.peer.presence.peers.some(({ shows, path }) => shows?.name === 'Ana' && path === 'direct'))
    await Promise.all([ana.picture('1-two-online'), ben.picture('1-two-online')])
  })

  it('is annotated elsewhere: on the screen within a second, over WebRTC and not by way of the hub, and with the agent a second later', async t => {
    const entered = await ben.annotate(2, 'what if the disk is full?')
    await ana.reads('what if the disk is full?')
    const atAna = performance.now()
    await untilListed('what if the disk is full?')
    const atAgent = performance.now()
    promised(t, 'on the screen', atAna - entered, soonMs)
    promised(t, 'with the agent after that', atAgent - atAna, soonMs)
    const ways = await ana.waysOf('what if the disk is full?')
    assert.deepEqual([...new Set(ways)], ['from data channel', 'to hub'], 'it came from Ben, and the hub had it from Ana')
    const pairs = await ana.pairs()
    assert.equal(pairs.length, 1)
    assert.match(pairs[0], /^(host|srflx|prflx)\/(host|srflx|prflx)$/)
    await ana.picture('2-annotated')
  })

  it('is annotated a hundred times over lines of 50 ms each way, and 99 of them are seen within a quarter of a second', async t => {
    lab.line({ delay: 50 })
    try {
      await ana.page.evaluate(() => {
        window.seen = {}
        window.review.doc.subscribe(() => {
          for (const note of window.review.doc.getList('annotations').toArray()) window.seen[note.get('text')] ??= Date.now()
        })
      })
      const sent = await ben.page.evaluate(async () => {
        const sent = {}
        for (let n = 0; n < 100; n++) {
          sent[`note ${n}`] = Date.now()
          window.review.doings.send('step:s1', `note ${n}`)
          await new Promise(resolve => setTimeout(resolve, 60))
        }
        return sent
      })
      await ana.until('all notes', () => window.seen['note 99'] !== undefined)
      const seen = await ana.page.evaluate(() => window.seen)
      const delays = Object.keys(sent).map(text => seen[text] - sent[text]).sort((a, b) => a - b)
      t.diagnostic(`100 ms away, one way: p50 ${delays[49]} ms, p99 ${delays[98]} ms, longest ${delays[99]} ms`)
      assert.ok(delays[0] >= 100, `the lines are not slow: ${delays[0]} ms`)
      promised(t, 'p99', delays[98], 250)
      await ben.page.evaluate(() => {
        for (const { id, text } of window.review.doc.toJSON().annotations) if (text.startsWith('note ')) window.review.doings.takeBack(id)
      })
      await ana.until('them gone', () => window.review.doc.getList('annotations').length === 1)
    } finally {
      lab.line()
    }
  })

  it('is reviewed on while the agent’s server is dead, and it catches up', async t => {
    process.kill(agent.pid, 'SIGKILL')
    await ben.annotate(1, 'written without the agent')
    await ana.reads('written without the agent')
    await ana.seesNoAgent()
    await count([ana, ben], 2)
    await startAgent(t)
    await untilListed('written without the agent')
    await ana.seesAgent()
    await count([ana, ben], 2)
  })

  it('is reviewed on while the signaling server is dead; when it returns a third browser joins', async () => {
    await meeting.killServer()
    await ana.annotate(3, 'written without signaling')
    await ben.reads('written without signaling')
    await untilListed('written without signaling')
    await ana.picture('3-without-signaling')
    await meeting.startServer()
    const cem = await meeting.open('b', shared, 'Cem')
    await cem.reads('written without signaling')
    await count([ana, ben, cem], 3)
    await cem.leave()
    await count([ana, ben], 2)
  })

  it('is reviewed by a Rust peer too, which is a third reviewer', async () => {
    const terminal = spawn('ip', ['netns', 'exec', lab.name('b'), annotate, 'dora', id, '--signal', signal, '--ice', `http://${SERVER}/ice`], { stdio: ['pipe', 'pipe', 'inherit'] })
    try {
      const said = []
      createInterface({ input: terminal.stdout }).on('line', line => said.push(line))
      await count([ana, ben], 3)
      await ana.annotate(1, 'from the browser')
      await until('the annotation in the terminal', () => said.some(line => line.includes('from the browser')))
      terminal.stdin.write('from the terminal\n')
      await Promise.all([ana.reads('from the terminal'), ben.reads('from the terminal')])
      await untilListed('from the terminal')
      await ana.picture('4-three-online')
    } finally {
      terminal.kill('SIGKILL')
    }
    await count([ana, ben], 2, waitFor(5000))
  })

  it('is edited on both sides while a line is dead; both know who is there, and are equal when it is back', async t => {
    const heal = meeting.cut('b')
    try {
      await count([ana, ben], 1, waitFor(5000))
      await Promise.all([ana.annotate(1, 'while you were away'), ben.annotate(2, 'while I was away')])
      await ben.until('the word about it', () => document.body.textContent.includes('Nobody answers'))
      await ben.picture('5-offline')
      await wait(deadMs)
    } finally {
      heal()
    }
    const healed = performance.now()
    await Promise.all([ana.reads('while I was away'), ben.reads('while you were away')])
    promised(t, 'in step after the line came back', performance.now() - healed, 3000)
    await count([ana, ben], 2)
    assert.equal(await ana.document(), await ben.document())
  })

  it('is there from IndexedDB when both load the page again without any network', async () => {
    await Promise.all([ana, ben].map(reviewer => reviewer.page.evaluate(() => navigator.serviceWorker.ready)))
    await Promise.all([ana.stored(), ben.stored()])
    const before = await ana.document()
    process.kill(agent.pid, 'SIGKILL')
    const heals = ['a', 'b'].map(home => meeting.cut(home))
    try {
      await Promise.all([ana, ben].map(reviewer => reviewer.page.reload()))
      await Promise.all([ana.reads('while I was away'), ben.reads('while I was away')])
      assert.deepEqual([await ana.document(), await ben.document()], [before, before])
      await count([ana, ben], 1)
      await ana.picture('6-reloaded-offline')
    } finally {
      for (const heal of heals) heal()
    }
    await startAgent()
    await count([ana, ben], 2)
  })

  it('sees a browser’s tab gone within five seconds of its death', async t => {
    await ben.crash()
    const killed = performance.now()
    await ana.counts(1, waitFor(5000))
    promised(t, 'gone', performance.now() - killed, 5000)
    await ben.leave()
  })

  for (const [nat, what] of [['symmetric', 'behind symmetric NATs by TURN'], ['webOnly', 'where only the web is let out by TURN over TLS']]) {
    it(`is reviewed ${what}`, async () => {
      await ana.leave()
      lab.nat(nat)
      try {
        ana = await meeting.open('a', link, 'Ana')
        ben = await meeting.open('b', shared, 'Ben')
        await count([ana, ben], 2)
        await ben.until('Ana by TURN', () => window.review.peer.presence.peers.some(({ shows, path }) => shows?.name === 'Ana' && path === 'turn'))
        await ben.annotate(4, `written from behind ${nat}`)
        await ana.reads(`written from behind ${nat}`)
        await untilListed(`written from behind ${nat}`)
        await ben.picture(`7-turn-${nat}`)
        await ben.leave()
      } finally {
        lab.nat('cone')
      }
    })
  }

  it('is reviewed through the relay where there is no WebRTC, and the page says so', async () => {
    await ana.leave()
    const relayed = toShare(link, signal)
    ana = await meeting.open('a', `${link}&hub=${encodeURIComponent(signal)}`, 'Ana', { withoutWebRtc: true })
    ben = await meeting.open('b', relayed, 'Ben', { withoutWebRtc: true })
    await ben.hasPlan()
    await count([ana, ben], 2)
    await ben.annotate(1, 'written through the relay')
    await ana.reads('written through the relay')
    await untilListed('written through the relay')
    assert.match(await ben.says('Other reviewers'), /no WebRTC, so all goes through the hub/)
    await ben.picture('8-relay')
    await Promise.all([ana.leave(), ben.leave()])
  })

  it('keeps ten browsers in step, five in each home', async () => {
    const all = await Promise.all(Array.from({ length: 10 }, (_, n) => meeting.open(n % 2 === 0 ? 'a' : 'b', n === 0 ? link : shared, `R${n}`)))
    await Promise.all(all.map(reviewer => reviewer.reads('written through the relay')))
    await Promise.all(all.map((reviewer, n) => reviewer.page.evaluate(n => { window.review.doings.send(`step:s${n % 4 + 1}`, `from R${n}`) }, n)))
    await Promise.all(all.map(reviewer => reviewer.until('all ten notes', () => {
      const texts = window.review.doc.toJSON().annotations.map(({ text }) => text)
      return Array.from({ length: 10 }, (_, n) => `from R${n}`).every(text => texts.includes(text))
    })))
    assert.equal(new Set(await Promise.all(all.map(reviewer => reviewer.document()))).size, 1)
    await count(all, 10)
    await untilListed('from R9')
    await all[0].picture('9-ten-online')
    for (const reviewer of all) assert.deepEqual(reviewer.errors, [])
    await Promise.all(all.map(reviewer => reviewer.leave()))
  })
})
