// The whole story, with a real agent: a plan made over MCP, reviewed in browsers and by a Rust peer, while servers die and return.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, describe, it } from 'node:test'
import { Agent, plan } from '../peer-sdk/web/examples/story/agent.mjs'
import { promised } from './promise.mjs'
import { relay, until } from './relay/peers.mjs'
import { launch, Reviewer, site } from './review/pages.mjs'
import { ourBinary } from './servers.mjs'

const examples = process.env.E2E_EXAMPLES ?? path.join(path.dirname(ourBinary), 'examples')
const program = name => path.join(examples, name)
const soonMs = 1_000

describe('a plan from an agent to its reviewers', { timeout: 180_000 }, () => {
  let browser, page, folder
  before(async () => {
    [page, browser, folder] = await Promise.all([site(), launch(), mkdtemp(path.join(os.tmpdir(), 'story-'))])
  })
  after(async () => {
    await browser?.close()
    await page?.close()
    await rm(folder, { recursive: true, force: true })
  })

  /** An agent whose hub has the same address and token whenever it is started. */
  async function agentAt (t, name, signal, hub = '127.0.0.1:0') {
    const flags = ['--dir', path.join(folder, name), '--page', `${page.url}/`, '--signal', signal, '--listen', hub, '--token', 'the-token-of-the-hub']
    const agent = await Agent.start(program('mcp_server'), flags)
    t.after(() => agent.stop())
    return agent
  }

  /** The link as it is shared: nobody elsewhere can dial a hub on our localhost. */
  function elsewhere (link) {
    const url = new URL(link)
    const address = new URLSearchParams(url.hash.slice(1))
    address.delete('hub')
    url.hash = address.toString()
    return String(url)
  }

  async function untilNoted (agent, id, text) {
    const deadline = Date.now() + 20_000
    for (let since; Date.now() < deadline;) {
      const seen = await agent.call('wait_for_change', { plan_id: id, since: since ?? 0, timeout_seconds: 5 })
      if (seen.annotations.some(note => note.text === text)) return
      since = seen.revision
    }
    assert.fail(`the agent has not seen ${text}`)
  }

  it('is written over MCP, shared by a link, annotated elsewhere, and read back by the agent within a second', async t => {
    const server = await relay(t)
    const agent = await agentAt(t, 'first', server.url)
    const { plan_id: id, link } = await agent.call('create_plan', plan)
    const ana = await Reviewer.open(browser, link, 'Ana')
    await ana.hasPlan()
    const ben = await Reviewer.open(browser, elsewhere(link), 'Ben')
    await ben.hasPlan()
    await Promise.all([ana, ben].map(reviewer => reviewer.counts(2)))
    await ana.until('Ben by a data channel', () => window.review.peer.presence.peers.some(({ shows, path }) => shows?.name === 'Ben' && path === 'direct'))
    assert.match(await ana.says('Hub'), /^Connected/)
    const { reviewers } = await agent.call('see_reviewers', { plan_id: id })
    assert.deepEqual(reviewers.map(({ name }) => name).sort(), ['Ana', 'Ben'], 'those beside the agent itself')

    await ben.annotate(2, 'what if the disk is full?')
    await ana.reads('what if the disk is full?')
    const atAna = performance.now()
    await untilNoted(agent, id, 'what if the disk is full?')
    promised(t, 'the agent had it after Ana', performance.now() - atAna, soonMs)

    const [{ id: annotation }] = (await agent.call('list_annotations', { plan_id: id })).annotations
    await agent.call('reply_to_annotation', { plan_id: id, annotation_id: annotation, text: 'Then it stops, and says so.' })
    await ben.reads('Then it stops, and says so.')
    for (const reviewer of [ana, ben]) {
      assert.deepEqual(reviewer.errors, [])
      await reviewer.leave()
    }
  })

  it('is reviewed on while the agent’s server is dead, and while the signaling server is; both catch up', async t => {
    const server = await relay(t)
    const agent = await agentAt(t, 'second', server.url)
    const { plan_id: id, link, hub } = await agent.call('create_plan', plan)
    const ana = await Reviewer.open(browser, link, 'Ana')
    const ben = await Reviewer.open(browser, elsewhere(link), 'Ben')
    await Promise.all([ana.hasPlan(), ben.hasPlan()])
    await Promise.all([ana, ben].map(reviewer => reviewer.counts(2)))
    await ana.seesAgent()
    await ben.until('Ana by a data channel', () => window.review.peer.presence.peers.some(({ shows, path }) => shows?.name === 'Ana' && path === 'direct'))

    process.kill(agent.pid, 'SIGKILL')
    await ben.annotate(1, 'written without the agent')
    await ana.reads('written without the agent')
    await ana.seesNoAgent()
    await Promise.all([ana, ben].map(reviewer => reviewer.counts(2)))
    const again = await agentAt(t, 'second', server.url, new URL(hub).host)
    await untilNoted(again, id, 'written without the agent')
    await ana.seesAgent()
    await Promise.all([ana, ben].map(reviewer => reviewer.counts(2)))

    await server.kill()
    await ana.annotate(3, 'written without signaling')
    await ben.reads('written without signaling')
    await untilNoted(again, id, 'written without signaling')
    await relay(t, { port: server.port })
    const cem = await Reviewer.open(browser, elsewhere(link), 'Cem')
    await cem.hasPlan()
    await cem.reads('written without signaling')
    await Promise.all([ana, ben, cem].map(reviewer => reviewer.counts(3)))
    await Promise.all([ana, ben, cem].map(reviewer => reviewer.leave()))
  })

  it('is reviewed by a Rust peer too, from a terminal', async t => {
    const server = await relay(t)
    const agent = await agentAt(t, 'third', server.url)
    const { plan_id: id, link } = await agent.call('create_plan', plan)
    const ana = await Reviewer.open(browser, elsewhere(link), 'Ana')
    await ana.hasPlan()
    const terminal = spawn(program('annotate'), ['ben', id, '--signal', server.url], { stdio: ['pipe', 'pipe', 'inherit'] })
    t.after(() => terminal.kill('SIGKILL'))
    const said = []
    createInterface({ input: terminal.stdout }).on('line', line => said.push(line))
    await ana.counts(2)
    await ana.annotate(1, 'from the browser')
    await until('the annotation in the terminal', () => said.some(line => line.includes('from the browser')))
    terminal.stdin.write('from the terminal\n')
    await ana.reads('from the terminal')
    await untilNoted(agent, id, 'from the terminal')
    terminal.kill('SIGKILL')
    await ana.counts(1, 5_000)
    await ana.leave()
  })
})
