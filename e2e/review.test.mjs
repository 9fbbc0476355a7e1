// The review page in real browsers, over the built server: signaling and relay in one.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { after, before, describe, it } from 'node:test'
import { encode, MessageType } from 'loro-protocol'
import { EphemeralStore, LoroDoc } from 'loro-crdt'
import WebSocket from 'ws'
import { promised, waitFor } from './promise.mjs'
import { relay } from './relay/peers.mjs'
import { fragment, launch, Reviewer, site } from './review/pages.mjs'

let browser, page
before(async () => {
  page = await site()
  browser = await launch()
})
after(async () => {
  await browser?.close()
  await page?.close()
})

let rooms = 0
const newRoom = () => `review-${process.pid}-${++rooms}`

/** A room with this server for signaling, and as relay unless it is to do without. */
function roomAt (server, { withRelay = true, room = newRoom(), ...rest } = {}) {
  const url = `${page.url}/${fragment({ room, signal: server.url, hub: withRelay ? server.url : undefined, ...rest })}`
  return {
    room,
    url,
    async join (name, options) { return await Reviewer.open(browser, url, name, options) },
    /** Everybody of these names; the first writes the plan. */
    async all (...names) {
      const [first, ...others] = names
      const ana = await this.join(first)
      await ana.start()
      await ana.hasPlan()
      const all = [ana, ...await Promise.all(others.map(name => this.join(name)))]
      await Promise.all(all.map(async reviewer => { await reviewer.hasPlan(); await reviewer.counts(names.length) }))
      return all
    }
  }
}

async function leaveAll (...reviewers) {
  for (const reviewer of reviewers) assert.deepEqual(reviewer.errors, [], `${reviewer.name} saw errors`)
  await Promise.all(reviewers.map(reviewer => reviewer.leave()))
}

const percentile = (values, share) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))]

describe('the review page', { timeout: 600_000 }, () => {
  it('shows an annotation to the other reviewer over WebRTC, and both how many there are', async t => {
    const server = await relay(t)
    const [ana, ben] = await roomAt(server).all('Ana', 'Ben')
    await Promise.all([ana.reaches(1, 'direct'), ben.reaches(1, 'direct')])
    const entered = await ben.annotate(2, 'what if it fails half-way?')
    await ana.reads('what if it fails half-way?')
    promised(t, 'an annotation is shown', performance.now() - entered, 1000)
    assert.deepEqual(await ana.pairs(), ['host/host'])
    assert.match(await ana.says('Other reviewers'), /Connected to one reviewer without a server between/)
    await ana.page.getByRole('button', { name: 'Reply to Ben' }).click()
    await ana.page.getByRole('textbox', { name: 'Reply to Ben' }).fill('it goes on where it was')
    await ana.page.keyboard.press('Control+Enter')
    await ben.reads('it goes on where it was')
    await ben.page.getByRole('button', { name: /^Resolve: what if/ }).click()
    await ana.until('it resolved', () => document.querySelector('.note') === null && document.body.textContent.includes('1 resolved'))
    await ana.caughtUp()
    await leaveAll(ana, ben)
  })

  it('brings a hundred annotations over one by one, each within a quarter of a second', async t => {
    const server = await relay(t)
    const [ana, ben] = await roomAt(server, { withRelay: false }).all('Ana', 'Ben')
    await ana.page.evaluate(() => {
      window.seen = {}
      window.review.doc.subscribe(() => {
        for (const { text } of window.review.doc.toJSON().annotations) window.seen[text] ??= Date.now()
      })
    })
    const sent = await ben.page.evaluate(async () => {
      const sent = {}
      for (let n = 0; n < 100; n++) {
        sent[`note ${n}`] = Date.now()
        window.review.doings.send('step:s1', `note ${n}`)
        await new Promise(resolve => setTimeout(resolve, 30))
      }
      return sent
    })
    await ana.until('all of them', () => Object.keys(window.seen).length === 100)
    const seen = await ana.page.evaluate(() => window.seen)
    const delays = Object.keys(sent).map(text => seen[text] - sent[text])
    t.diagnostic(`annotations over a data channel: p50 ${percentile(delays, 0.5)} ms`)
    promised(t, 'p99', percentile(delays, 0.99), 250)
    await leaveAll(ana, ben)
  })

  it('goes on when the server is killed, and lets a third reviewer in when it is back', async t => {
    const server = await relay(t)
    const room = roomAt(server)
    const [ana, ben] = await room.all('Ana', 'Ben')
    await Promise.all([ana.reaches(1, 'direct'), ben.reaches(1, 'direct')])
    await server.kill()
    await ana.until('the loss', () => window.review.peer.status.signaling[0].state !== 'connected')
    await ben.annotate(1, 'said without a server')
    await ana.reads('said without a server')
    assert.match(await ana.says('Hub'), /Not there at the moment/)
    await ana.counts(2)
    await relay(t, { port: server.port })
    const cem = await room.join('Cem')
    await cem.reads('said without a server')
    await Promise.all([ana, ben, cem].map(reviewer => reviewer.counts(3)))
    await leaveAll(ana, ben, cem)
  })

  it('opens without any network, with everything that was there', async t => {
    const server = await relay(t)
    const own = await site()
    t.after(() => own.close())
    const room = roomAt(server)
    const url = room.url.replace(page.url, own.url)
    const ana = await Reviewer.open(browser, url, 'Ana')
    await ana.start()
    await ana.annotate(3, 'kept in this browser')
    await ana.reads('kept in this browser')
    await ana.stored()
    await ana.page.evaluate(() => navigator.serviceWorker.ready)
    const before = await ana.document()
    await server.kill()
    own.stop()
    await ana.page.reload()
    await ana.reads('kept in this browser')
    assert.equal(await ana.document(), before)
    await ana.until('the words about it', () => document.querySelector('#offline')?.textContent.includes('your notes are kept'))
    await ana.annotate(4, 'written offline')
    await ana.stored()
    await relay(t, { port: server.port })
    const ben = await room.join('Ben')
    await ben.reads('written offline')
    await leaveAll(ben)
    await ana.leave()
  })

  for (const [how, withRelay] of [['with a relay', true], ['with data channels alone', false]]) {
    it(`shows within five seconds that a tab was killed, ${how}`, async t => {
      const server = await relay(t)
      const [ana, ben, cem] = await roomAt(server, { withRelay }).all('Ana', 'Ben', 'Cem')
      await ana.reaches(2, 'direct')
      await cem.crash()
      const killed = performance.now()
      await Promise.all([ana, ben].map(reviewer => reviewer.counts(2, waitFor(5000))))
      promised(t, `gone ${how}`, performance.now() - killed, 5000)
      await leaveAll(ana, ben)
      await cem.leave()
    })
  }

  it('shows at once who closes the tab', async t => {
    const server = await relay(t)
    const [ana, ben] = await roomAt(server, { withRelay: false }).all('Ana', 'Ben')
    await ben.leave()
    await ana.counts(1, waitFor(1000))
    await leaveAll(ana)
  })

  it('is gone while its page is in the cache for going back, and there again with it', async t => {
    const server = await relay(t)
    const room = roomAt(server)
    const [ana, ben] = await room.all('Ana', 'Ben')
    const tab = await room.join('Ben', { beside: ben })
    await tab.hasPlan()
    await ana.until('both tabs', () => window.review.peer.presence.peers.length === 2)
    await ben.page.evaluate(() => window.dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true })))
    await ana.until('one tab', () => window.review.peer.presence.peers.length === 1, undefined, waitFor(1000))
    await ana.annotate(1, 'while it was away')
    await ben.page.evaluate(() => window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true })))
    await ben.reads('while it was away')
    await tab.reads('while it was away')
    await Promise.all([ana, tab].map(reviewer => reviewer.until('everybody', () => window.review.peer.presence.peers.length === 2)))
    await ben.annotate(2, 'back again')
    await Promise.all([ana, tab].map(reviewer => reviewer.reads('back again')))
    await leaveAll(ana, ben)
  })

  it('keeps ten browsers in step', async t => {
    const server = await relay(t)
    const names = Array.from({ length: 10 }, (_, n) => `Reviewer ${n}`)
    const all = await roomAt(server).all(...names)
    await Promise.all(all.map((reviewer, n) => reviewer.page.evaluate(n => { window.review.doings.send(`step:s${n % 4 + 1}`, `from ${n}`) }, n)))
    await Promise.all(all.map(reviewer => reviewer.until('all ten notes', () => window.review.doc.toJSON().annotations.length === 10)))
    assert.equal(new Set(await Promise.all(all.map(reviewer => reviewer.document()))).size, 1)
    await Promise.all(all.map(reviewer => reviewer.counts(10)))
    await leaveAll(...all)
  })

  it('goes through the relay where there is no WebRTC, and says so', async t => {
    const server = await relay(t)
    const room = roomAt(server)
    const ana = await room.join('Ana', { withoutWebRtc: true })
    await ana.start()
    const ben = await room.join('Ben')
    await ben.hasPlan()
    await Promise.all([ana.reaches(1, 'hub'), ben.reaches(1, 'hub')])
    await ben.annotate(1, 'by the long way')
    await ana.reads('by the long way')
    assert.match(await ana.says('Other reviewers'), /no WebRTC, so all goes through the hub/)
    assert.match(await ana.page.locator('.person[data-path="hub"] small').textContent(), /through the hub/)
    await leaveAll(ana, ben)
  })

  it('shares between tabs of one browser without a network between them', async t => {
    const server = await relay(t)
    const room = roomAt(server, { withRelay: false })
    const ana = await room.join('Ana')
    await ana.start()
    const again = await room.join('Ana', { beside: ana })
    await again.hasPlan()
    await again.reaches(1, 'tab')
    await server.kill()
    await again.annotate(1, 'from the other tab')
    await ana.reads('from the other tab')
    // Signaling may have been quicker than the tabs: then what was begun has been given up.
    assert.deepEqual(await ana.page.evaluate(() => window.connections.filter(({ connectionState, remoteDescription }) => connectionState !== 'closed' && remoteDescription !== null).length), 0)
    assert.equal(await ana.online(), '1 reviewer online', 'two tabs are one person')
    await again.crash()
    await ana.until('the other tab gone', () => window.review.peer.presence.peers.length === 0, undefined, waitFor(5000))
    await ana.leave()
  })

  it('goes on beside a tab that has a later version of the page, and says what that means', async t => {
    const server = await relay(t)
    const room = roomAt(server)
    const [ana, ben] = await room.all('Ana', 'Ben')
    const later = await ana.context.newPage()
    await later.goto(page.url)
    const upgraded = await later.evaluate(laterVersion, room.room)
    assert.equal(upgraded, 'upgraded', 'a later version need not wait for the earlier one')
    await ana.annotate(1, 'written beside a later version')
    await ben.reads('written beside a later version')
    await ana.until('the word about it', () => document.body.textContent.includes('Cannot save: a later version of this page is open'))
    const again = await room.join('Ana', { beside: ana })
    await again.reads('written beside a later version')
    await again.until('the word about it', () => document.body.textContent.includes('keeps nothing here'))
    assert.match(await again.page.locator('body').textContent(), /a later version of this page is open/)
    await again.annotate(2, 'kept by the others')
    await ben.reads('kept by the others')
    await later.close()
    await again.page.close()
    await leaveAll(ana, ben)
  })

  it('lets nobody in who has no password', async t => {
    const server = await relay(t)
    const room = roomAt(server, { withRelay: false, password: 'correct horse' })
    const [ana, ben] = await room.all('Ana', 'Ben')
    const eve = await roomAt(server, { withRelay: false, room: room.room }).join('Eve')
    await eve.until('the word about it', () => document.body.textContent.includes('Somebody here uses another password'))
    assert.equal(await eve.online(), '1 reviewer online')
    assert.equal(await ana.online(), '2 reviewers online')
    await leaveAll(ana, ben, eve)
  })

  for (const room of ['"><img src=x onerror=hacked=1>', '日本語/..?#&=%00 +', 'x'.repeat(128)]) {
    it(`takes a room called ${JSON.stringify(room.slice(0, 30))}`, async t => {
      const server = await relay(t)
      const [ana, ben] = await roomAt(server, { room }).all('Ana', 'Ben')
      assert.equal(await ana.page.evaluate(() => window.hacked), undefined)
      await leaveAll(ana, ben)
    })
  }

  it('says what is wrong with a link that cannot be opened', async () => {
    for (const [hash, words] of [[fragment({ room: 'x'.repeat(129) }), /room name is 129 bytes/], [fragment({ room: 'x', hub: 'http://nowhere/?token=secret' }), /http:\/\/nowhere\/: only ws and wss/]]) {
      const eve = await Reviewer.open(browser, `${page.url}/${hash}`, 'Eve')
      assert.match(await eve.page.getByRole('alert').textContent(), words)
      assert.doesNotMatch(await eve.page.getByRole('alert').textContent(), /secret/)
      await eve.leave()
    }
  })

  it('shows what strangers send as text, and lives with the rest', async t => {
    const server = await relay(t)
    const { room, ...at } = roomAt(server)
    const [ana, ben] = await roomAt(server, { room }).all('Ana', 'Ben')
    t.after(await stranger(server.url, room))
    await ana.until('the stranger', () => document.body.textContent.includes('<img src=x onerror=hacked=1>'))
    await ben.annotate(1, 'still here')
    await ana.reads('still here')
    assert.equal(await ana.page.evaluate(() => window.hacked), undefined)
    assert.equal(await ana.page.locator('img').count(), 0)
    assert.ok(at.url)
    await leaveAll(ana, ben)
  })
})

/**
 * What a page does that will be written one day: it changes the database, and says to the other tabs what these have never
 * heard of.
 */
async function laterVersion (room) {
  const channel = new BroadcastChannel(`peer-sdk ${room}`)
  for (const said of [{ from: 'later', kind: 'greeting', version: 2 }, { from: 'later', kind: 'hello', version: 2 }, { version: 2 }, null, 'hello']) channel.postMessage(said)
  for (const frame of [new Uint8Array(0), Uint8Array.of(37, 76, 79, 82, 255, 255, 255), 'text', undefined]) channel.postMessage({ from: 'later', kind: 'frame', frame })
  return await new Promise(resolve => {
    const request = indexedDB.open('plan reviews', 2)
    request.onupgradeneeded = () => { request.result.createObjectStore('later') }
    request.onblocked = () => { resolve('blocked') }
    request.onerror = () => { resolve(String(request.error)) }
    request.onsuccess = () => { resolve('upgraded') }
  })
}

/** Shows itself under hostile names, and writes what is no annotation, over a socket of its own. */
async function stranger (url, room) {
  const socket = new WebSocket(url)
  await once(socket, 'open')
  const hostile = '<img src=x onerror=hacked=1>'
  const join = crdt => ({ type: MessageType.JoinRequest, crdt, roomId: room, auth: new Uint8Array(), version: new Uint8Array() })
  for (const crdt of ['%EPH', '%LOR']) socket.send(encode(join(crdt)))
  await new Promise(resolve => setTimeout(resolve, 200))
  const shown = {
    1: { user: hostile, state: { name: hostile, cursor: { step_id: hostile } } },
    2: { user: 7, state: 'no object' },
    3: { user: hostile.repeat(9000), state: { name: 'x'.repeat(200_000) } },
    4: null,
    5: { user: '__proto__', state: { __proto__: { name: 'p' }, name: { toString: 'x' } } },
    __proto__: 3
  }
  const update = (crdt, updates, n) => socket.send(encode({ type: MessageType.DocUpdate, crdt, roomId: room, updates, batchId: `0x${String(n).padStart(16, '0')}` }))
  let batch = 0
  for (const [key, value] of Object.entries(shown)) {
    const store = new EphemeralStore(30_000)
    store.set(key, value)
    const bytes = store.encodeAll()
    store.destroy()
    if (bytes.length < 200_000) update('%EPH', [bytes], ++batch)
  }
  update('%EPH', [Uint8Array.of(255, 255, 255, 255, 255, 1)], ++batch)
  const doc = new LoroDoc()
  const annotations = doc.getList('annotations')
  for (const value of [null, 7, 'text', [], { id: 1 }, { id: 'a', step_id: 's1', author: hostile, text: hostile, at: 1, resolved: 'yes', replies: 'none' }, { id: 'b', step_id: 's1', author: {}, text: 'x', at: 1 }, { id: 'c', step_id: {}, author: 'x', text: 'x', at: Infinity }]) annotations.push(value)
  doc.commit()
  update('%LOR', [doc.export({ mode: 'update' })], ++batch)
  return () => socket.terminate()
}
