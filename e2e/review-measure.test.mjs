// What the peers of the review page cost each other: at rest, and while a long document is under way.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, describe, it } from 'node:test'
import { whyNot } from './nat/lab.mjs'
import { promised } from './promise.mjs'
import { relay } from './relay/peers.mjs'
import { fragment, launch, Reviewer, site } from './review/pages.mjs'

const wait = ms => new Promise(resolve => setTimeout(resolve, ms))

describe('reviewers over data channels alone', { timeout: 300_000 }, () => {
  let browser, page
  before(async () => {
    page = await site()
    browser = await launch()
  })
  after(async () => {
    await browser?.close()
    await page?.close()
  })

  const roomAt = (server, room) => `${page.url}/${fragment({ room, signal: server.url })}`

  it('say less than 20 KB in ten seconds, eight of them at rest together', async t => {
    const url = roomAt(await relay(t), 'rest')
    const all = []
    for (let n = 0; n < 8; n++) {
      const reviewer = await Reviewer.open(browser, url, `R${n}`)
      if (n === 0) await reviewer.start()
      await reviewer.hasPlan()
      all.push(reviewer)
    }
    await Promise.all(all.map(reviewer => reviewer.counts(8)))
    // What it takes to come together is no rest.
    await wait(15_000)
    const sent = async () => (await Promise.all(all.map(sentBy))).reduce((sum, bytes) => sum + bytes, 0)
    // They say that they are there each in its own time: three looks, of which the one in the middle counts.
    const looks = []
    for (let before = await sent(); looks.length < 3;) {
      await wait(10_000)
      const now = await sent()
      looks.push(now - before)
      before = now
    }
    const bytes = looks.toSorted((a, b) => a - b)[1]
    t.diagnostic(`eight at rest: ${looks.join(', ')} bytes in 10 s`)
    assert.ok(bytes < 20 * 1024, `${bytes} bytes`)
    await Promise.all(all.map(reviewer => reviewer.leave()))
  })

  it('see small edits within a quarter of a second while a newcomer gets 20 MB', async t => {
    const url = roomAt(await relay(t), 'long')
    const ana = await Reviewer.open(browser, url, 'Ana')
    await ana.start()
    await ana.hasPlan()
    const cem = await Reviewer.open(browser, url, 'Cem')
    await cem.hasPlan()
    await ana.reaches(1, 'direct')
    await ana.page.evaluate(() => {
      const text = window.review.doc.getText('long')
      for (let part = 0; part < 20; part++) {
        text.push(Array.from({ length: 1_000_000 }, () => String.fromCharCode(97 + Math.random() * 26)).join(''))
      }
      window.review.doc.commit()
    })
    const isThere = () => window.review?.doc?.getText('long').length === 20_000_000
    await cem.until('20 MB', isThere, undefined, 60_000)
    await ana.caughtUp()
    await ana.page.evaluate(() => {
      window.seen = {}
      window.review.doc.subscribe(() => {
        for (const note of window.review.doc.getList('annotations').toArray()) window.seen[note.get('text')] ??= Date.now()
      })
    })
    const started = Date.now()
    const ben = await Reviewer.open(browser, url, 'Ben')
    const sending = cem.page.evaluate(async () => {
      const sent = {}
      for (let n = 0; n < 60; n++) {
        sent[`note ${n}`] = Date.now()
        window.review.doings.send('step:s1', `note ${n}`)
        await new Promise(resolve => setTimeout(resolve, 100))
      }
      return sent
    })
    await ben.until('20 MB', isThere, undefined, 60_000)
    t.diagnostic(`a newcomer has 20 MB ${Date.now() - started} ms after it opened the page`)
    const sent = await sending
    await ana.until('all edits', () => Object.keys(window.seen).length === 60)
    const seen = await ana.page.evaluate(() => window.seen)
    const delays = Object.keys(sent).map(text => seen[text] - sent[text]).sort((a, b) => a - b)
    t.diagnostic(`edits meanwhile: p50 ${delays[30]} ms, p95 ${delays[57]} ms, longest ${delays[59]} ms`)
    promised(t, 'p95', delays[57], 250)
    await Promise.all([ana, ben, cem].map(reviewer => reviewer.leave()))
  })
})

describe('the comparison with y-webrtc', { skip: whyNot(), timeout: 120_000 }, () => {
  it('prints a table, and fails when a promise of it is broken', async t => {
    const script = path.join(import.meta.dirname, 'review/compare/compare.mjs')
    const child = spawn(process.execPath, [script, '--runs', '1', '--only', 'cone'], { stdio: ['ignore', 'pipe', 'inherit'] })
    const [said, [code]] = await Promise.all([text(child.stdout), once(child, 'exit')])
    const row = /^\| First sync: ordinary NATs, STUN \| (\d+) ms \| (\d+) ms \| no slower \|$/m.exec(said)
    assert.ok(row, said)
    t.diagnostic(`ours ${row[1]} ms, y-webrtc ${row[2]} ms`)
    // What is equal when rounded may not be equal.
    if (row[1] !== row[2]) assert.equal(code, Number(row[1]) > Number(row[2]) ? 1 : 0)
  })
})

/** What a page has sent on its data channels, in bytes. */
function sentBy ({ page }) {
  return page.evaluate(async () => {
    let bytes = 0
    for (const connection of window.connections.filter(({ connectionState }) => connectionState === 'connected')) {
      for (const stats of (await connection.getStats()).values()) if (stats.type === 'data-channel') bytes += stats.bytesSent
    }
    return bytes
  })
}
