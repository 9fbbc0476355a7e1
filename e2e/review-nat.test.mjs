// Two reviewers in two homes behind real NATs: directly, through TURN, through the relay, and over lines that fail.
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { Lab, whyNot } from './nat/lab.mjs'
import { promised, waitFor } from './promise.mjs'
import { Meeting } from './review/lab.mjs'

const reason = whyNot()
const deadMs = 20_000
const wait = ms => new Promise(resolve => setTimeout(resolve, ms))

describe('reviewers in two homes', { skip: reason, timeout: 600_000 }, () => {
  let lab, meeting

  before(async () => {
    lab = new Lab()
    meeting = await Meeting.start(lab)
  })
  after(async () => {
    await meeting?.close()
    lab?.close()
  })

  async function converse (t, ana, ben) {
    const started = Date.now()
    await ben.annotate(1, 'seen from the other network')
    await ana.reads('seen from the other network')
    promised(t, 'an annotation is shown, typing included', Date.now() - started, 1000)
    await ana.annotate(2, 'and back')
    await ben.reads('and back')
  }

  async function part (...reviewers) {
    for (const reviewer of reviewers) assert.deepEqual(reviewer.errors, [])
    await Promise.all(reviewers.map(reviewer => reviewer.leave()))
  }

  it('behind ordinary NATs talk directly, and no server sees what they write', async t => {
    const { ana, ben, firstSync } = await meeting.meet({ nat: 'cone' })
    t.diagnostic(`first sync ${firstSync} ms`)
    await Promise.all([ana.reaches(1, 'direct'), ben.reaches(1, 'direct')])
    assert.doesNotMatch((await ana.pairs()).join(), /relay/)
    await converse(t, ana, ben)
    await part(ana, ben)
  })

  for (const [nat, what] of [['symmetric', 'behind symmetric NATs talk through TURN'], ['webOnly', 'where only the web is let out talk through TURN over TLS']]) {
    it(`${what}, and the page says so`, async t => {
      const { ana, ben, firstSync } = await meeting.meet({ nat })
      t.diagnostic(`first sync ${firstSync} ms`)
      await Promise.all([ana.reaches(1, 'turn'), ben.reaches(1, 'turn')])
      assert.match(await ana.page.locator('.person[data-path="turn"] small').textContent(), /relayed \(TURN\)/)
      await converse(t, ana, ben)
      await part(ana, ben)
    })
  }

  it('who cannot reach each other at all talk through the relay', async t => {
    const { ana, ben } = await meeting.meet({ nat: 'symmetric', withRelay: true, ice: false })
    await Promise.all([ana.reaches(1, 'hub'), ben.reaches(1, 'hub')])
    await converse(t, ana, ben)
    await part(ana, ben)
  })

  it(`are in step within three seconds when a line comes back that was dead for ${deadMs / 1000} s`, async t => {
    const { ana, ben } = await meeting.meet({ nat: 'cone' })
    await ana.reaches(1, 'direct')
    const heal = meeting.cut('b')
    await ana.counts(1, waitFor(5000))
    await Promise.all([ana.annotate(1, 'while you were away'), ben.annotate(2, 'while I was away')])
    await wait(deadMs)
    heal()
    const healed = Date.now()
    await Promise.all([ana.reads('while I was away'), ben.reads('while you were away')])
    const took = Date.now() - healed
    await Promise.all([ana, ben].map(reviewer => reviewer.counts(2)))
    assert.equal(await ana.notes(), await ben.notes())
    promised(t, 'in step', took, 3000)
    await part(ana, ben)
  })

  it('are in step within three seconds when a home has got another public address', async t => {
    const { ana, ben } = await meeting.meet({ nat: 'cone' })
    await ana.reaches(1, 'direct')
    const restore = meeting.rebind('b')
    t.after(restore)
    const started = Date.now()
    await ben.annotate(1, 'from another address')
    await ana.reads('from another address')
    const took = Date.now() - started
    promised(t, 'in step', took, 3000)
    await part(ana, ben)
  })

  it('see within five seconds that the other browser was killed', async t => {
    const { ana, ben } = await meeting.meet({ nat: 'cone' })
    await ana.reaches(1, 'direct')
    await ben.crash()
    const killed = Date.now()
    await ana.counts(1, waitFor(5000))
    promised(t, 'gone', Date.now() - killed, 5000)
    await part(ana)
    await ben.leave()
  })
})
