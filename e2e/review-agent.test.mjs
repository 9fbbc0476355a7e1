// The whole story: an agent writes a plan by its MCP tool, people review it in their browsers and in a terminal, and servers
// come and go meanwhile. The agent's server and the terminal are Rust peers, the browsers are this page.
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { directory, relay } from './relay/peers.mjs'
import { Agent, Terminal, whyNot } from './review/agent.mjs'
import { launch, Reviewer, site } from './review/pages.mjs'

const reason = whyNot()
const steps = ['Read', 'Backfill', 'Switch', 'Remove'].map(title => ({ title, text: `${title} it.` }))

describe('an agent and its reviewers', { skip: reason, timeout: 300_000 }, () => {
  let browser, page
  before(async () => {
    page = await site()
    browser = await launch()
  })
  after(async () => {
    await browser?.close()
    await page?.close()
  })

  /** An agent with a plan, and the links to it: for who is on its machine, and for everybody else. */
  async function begin (t) {
    const server = await relay(t)
    const args = ['--dir', await directory(t), '--token', 'hub-token', '--page', `${page.url}/`, '--signal', server.url]
    const agent = await Agent.start(...args, '--listen', '127.0.0.1:0')
    t.after(() => agent.kill())
    const created = await agent.tool('create_plan', { title: 'Move the search', steps })
    const link = /http\S+#room=[^\s"\\]+/.exec(created)[0]
    const hub = new URLSearchParams(new URL(link).hash.slice(1)).get('hub')
    const room = new URLSearchParams(new URL(link).hash.slice(1)).get('room')
    const port = new URL(hub).port
    const shared = link.replace(/&hub=[^&]*/, '')
    const again = async () => {
      const agent = await Agent.start(...args, '--listen', `127.0.0.1:${port}`)
      t.after(() => agent.kill())
      return agent
    }
    return { server, agent, plan: room, link, shared, room, again }
  }

  it('meet over the hub and over WebRTC, and each has what the others say', async t => {
    const { agent, plan, link, shared } = await begin(t)
    const ana = await Reviewer.open(browser, link, 'Ana')
    await ana.hasPlan()
    const ben = await Reviewer.open(browser, shared, 'Ben')
    await ben.hasPlan()
    await Promise.all([ana, ben].map(reviewer => reviewer.counts(3)))
    await ben.annotate(2, 'what if it fails half-way?')
    await ana.reads('what if it fails half-way?')
    const started = Date.now()
    await agent.hasNote(plan, 'what if it fails half-way?')
    t.diagnostic(`the agent had it ${Date.now() - started} ms after the other browser`)
    assert.ok(Date.now() - started < 1000)
    await agent.tool('add_annotation', { plan_id: plan, step_id: '', text: 'from the agent' }).catch(() => agent.tool('add_annotation', { plan_id: plan, text: 'from the agent' }))
    await Promise.all([ana, ben].map(reviewer => reviewer.reads('from the agent')))
    assert.match(await agent.tool('see_reviewers', { plan_id: plan }), /Ana[\s\S]*Ben|Ben[\s\S]*Ana/)
    assert.deepEqual([...ana.errors, ...ben.errors], [])
    await Promise.all([ana, ben].map(reviewer => reviewer.leave()))
  })

  it('go on while the agent is away, and it catches up when it is back', async t => {
    const { agent, plan, link, shared, again } = await begin(t)
    const ana = await Reviewer.open(browser, link, 'Ana')
    await ana.hasPlan()
    const ben = await Reviewer.open(browser, shared, 'Ben')
    await ben.hasPlan()
    await Promise.all([ana, ben].map(reviewer => reviewer.counts(3)))
    await agent.kill()
    await Promise.all([ana, ben].map(reviewer => reviewer.counts(2, 6000)))
    await ben.annotate(1, 'while the agent was away')
    await ana.reads('while the agent was away')
    const back = await again()
    await back.hasNote(plan, 'while the agent was away')
    await Promise.all([ana, ben].map(reviewer => reviewer.counts(3)))
    await Promise.all([ana, ben].map(reviewer => reviewer.leave()))
  })

  it('let a reviewer in a terminal in, who finds them by signaling alone', async t => {
    const { server, link, shared, room } = await begin(t)
    const ana = await Reviewer.open(browser, link, 'Ana')
    await ana.hasPlan()
    const ben = await Reviewer.open(browser, shared, 'Ben')
    await ben.hasPlan()
    const cem = new Terminal('Cem', room, '--signal', server.url)
    t.after(() => cem.kill())
    await Promise.all([ana, ben].map(reviewer => reviewer.counts(4)))
    await ben.annotate(3, 'can you read this, Cem?')
    await cem.shows('can you read this, Cem?')
    cem.type('I can.')
    await Promise.all([ana, ben].map(reviewer => reviewer.reads('I can.')))
    await ben.until('Cem reached directly', () => window.review.peer.presence.peers.some(({ shows, path }) => shows?.name === 'Cem' && path === 'direct'))
    await cem.kill()
    await Promise.all([ana, ben].map(reviewer => reviewer.counts(3, 5000)))
    await Promise.all([ana, ben].map(reviewer => reviewer.leave()))
  })
})
