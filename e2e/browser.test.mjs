// Real browser pages with unmodified y-webrtc find each other through a signaling server and stay in step.
// The reference server takes the same tests: what fails there is wrong with the test, not with our server.
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { Browser } from './browser.mjs'
import { ours, reference, underTest } from './servers.mjs'

const idleMs = 40_000

let browser
before(async () => { browser = await Browser.launch() })
after(() => browser?.close())

let rooms = 0
const newRoom = () => `peer-plan-${++rooms}`

describe('unmodified y-webrtc', { concurrency: true, timeout: 600_000 }, () => {
  for (const kind of underTest(reference, ours)) {
    describe(`pages through ${kind.name}`, { concurrency: 3 }, () => pages(kind))
  }
})

function pages (kind) {
  let server
  before(async () => { server = await kind.start() })
  after(() => server?.kill())

  for (const [how, password] of [['without a password', undefined], ['with a password', 'correct horse']]) {
    it(`keeps two pages in step ${how}`, async () => {
      const join = joinAs({ server, room: newRoom(), password })
      const ana = await join('ana')
      const ben = await join('ben')
      await inStep(ana, ben)
      await ana.hide()
      await ben.until('ana gone', () => !('ana' in window.participant.cursors()))
      await leaveAll([ana, ben])
    })
  }

  it('keeps three pages in step', async () => {
    const join = joinAs({ server, room: newRoom() })
    const pages = await Promise.all(['ana', 'ben', 'cem'].map(join))
    await Promise.all(pages.map(page => page.hasLinks(2)))
    await inStep(...pages)
    await leaveAll(pages)
  })

  it('leaves a page with the wrong password alone', async () => {
    const room = newRoom()
    const ana = await joinAs({ server, room, password: 'correct horse' })('ana')
    const eve = await joinAs({ server, room, password: 'battery staple' })('eve')
    await ana.write('secret')
    await Promise.all([ana.hasSignaling(), eve.hasSignaling()])
    // Eve has heard what ana announces, and could not read it, by the time that a third page has ana's text.
    const ben = await joinAs({ server, room, password: 'correct horse' })('ben')
    await ben.reads('secret')
    assert.equal(await eve.text(), '')
    assert.equal(await eve.links(), 0)
    assert.deepEqual(Object.keys(await eve.cursors()), ['eve'])
    await leaveAll([ana, eve, ben])
  })

  it('keeps rooms apart', async () => {
    const [ana, ben] = await Promise.all(['ana', 'ben'].map(joinAs({ server, room: newRoom() })))
    const stranger = await joinAs({ server, room: newRoom() })('stranger')
    await inStep(ana, ben)
    assert.equal(await stranger.text(), '')
    assert.equal(await stranger.links(), 0)
    await leaveAll([ana, ben, stranger])
  })

  it(`keeps an idle page connected for ${idleMs / 1000} s`, async () => {
    const join = joinAs({ server, room: newRoom() })
    const ana = await join('ana')
    await ana.hasSignaling()
    // lib0 gives a connection up when nothing arrived for 30 s; time has to pass to see that it does not.
    await new Promise(resolve => setTimeout(resolve, idleMs))
    assert.equal(await ana.disconnects(), 0)
    assert.ok(await ana.sinceLastMessage() < 20_000, 'no pong came')
    const ben = await join('ben')
    await inStep(ana, ben)
    await leaveAll([ana, ben])
  })

  it('has its pages back after it was killed and started again, and lets a third one in', async () => {
    const first = await kind.start()
    await outlives(first, () => first.kill())
  })

  it('has its pages back after it was drained and started again, and lets a third one in', {
    skip: kind.isReference ? 'the reference just ends' : false
  }, async () => {
    const first = await kind.start({ env: { SIGNALING_DRAIN_READY_WAIT: '0s', SIGNALING_DRAIN_WINDOW: '1s' } })
    await outlives(first, async () => assert.deepEqual(await first.stop(), { code: 0, signal: null }))
  })

  async function outlives (first, end) {
    const join = joinAs({ server: first, room: newRoom() })
    const [ana, ben] = await Promise.all(['ana', 'ben'].map(join))
    await inStep(ana, ben)
    await end()
    await Promise.all([ana.hasNoSignaling(), ben.hasNoSignaling()])
    await ana.write('while the server is away ')
    await ben.reads(await ana.text())
    const second = await kind.start({ port: first.port })
    await Promise.all([ana.hasSignaling(), ben.hasSignaling()])
    const cem = await join('cem')
    await inStep(ana, ben, cem)
    await leaveAll([ana, ben, cem])
    await second.kill()
  }
}

const joinAs = ({ server, room, password }) => name => browser.join({ name, room, server: server.url, password })

const leaveAll = pages => Promise.all(pages.map(page => page.leave()))

/** What each page writes and where each one's cursor is reaches every other page, over WebRTC and nothing else. */
async function inStep (...pages) {
  for (const writer of pages) {
    await writer.write(`${writer.name} was here, `)
    const text = await writer.text()
    await Promise.all(pages.map(page => page.reads(text)))
    const cursor = text.length
    await writer.moveCursor(cursor)
    await Promise.all(pages.map(page => page.sees(writer.name, cursor)))
  }
  for (const page of pages) {
    assert.equal(await page.tabsHeard(), 0, 'pages met by BroadcastChannel: they are not in contexts of their own')
    assert.ok(await page.dataChannelMessages() > 0, 'nothing came over a data channel')
  }
}
