// The status page of the operator listener in a real browser: live figures, drain state, light and dark.
import assert from 'node:assert/strict'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { MessageType } from 'loro-protocol'
import { chromium } from 'playwright-core'
import { executable } from '../browser.mjs'
import { ours } from '../servers.mjs'
import { subscriber } from '../socket.mjs'
import { Author } from './author.mjs'
import { until } from './processes.mjs'

const patience = { timeout: 20_000 }
const readable = 4.5 // WCAG 2.2, level AA, for text of ordinary size.

describe('the status page', { timeout: 120_000 }, () => {
  let browser, server, operator

  before(async () => {
    if (!executable) throw new Error('Chromium is missing: apt-get install chromium')
    browser = await chromium.launch({ executablePath: executable, args: ['--no-sandbox', '--disable-gpu', '--no-first-run'] })
    server = await ours.start({ env: { SIGNALING_DRAIN_READY_WAIT: '30s', SIGNALING_DRAIN_WINDOW: '30s' } })
    operator = (await server.line(/metrics on (http:\/\/[^/]+)/))[1]
  })
  after(async () => {
    await browser?.close()
    await server?.kill()
  })

  /** The page in a scheme, with all it has asked for and complained of. */
  async function open (colorScheme) {
    const context = await browser.newContext({ colorScheme, viewport: { width: 1200, height: 900 } })
    const page = await context.newPage()
    const asked = new Set()
    const complaints = []
    page.on('request', request => asked.add(new URL(request.url()).origin))
    page.on('console', message => { if (['error', 'warning'].includes(message.type())) complaints.push(message.text()) })
    page.on('pageerror', error => complaints.push(String(error)))
    await page.goto(`${operator}/`)
    return { page, asked, complaints, state: text => page.getByRole('status').filter({ hasText: text }).waitFor(patience) }
  }
  const figure = (page, name, value) =>
    page.getByRole('article').filter({ has: page.getByRole('heading', { name, exact: true }) }).getByText(value).waitFor(patience)

  it('shows what goes on, and takes the name of a room for nothing but text', async () => {
    const evil = '<img src=x onerror="document.title=1">'
    const clients = await Promise.all([evil, evil, 'plan'].map(room => subscriber(server.url, room)))
    const { page, asked, complaints, state } = await open('light')
    const chatter = setInterval(() => clients[0].publish(evil, 'line 3 is wrong'), 100)
    await state('ready')
    await figure(page, 'Connections', '3')
    await figure(page, 'Rooms', '2')
    assert.equal(await page.getByRole('heading', { name: 'Documents and presence' }).isVisible(), false, 'nothing is relayed')
    await figure(page, 'Messages in, a second', /^([5-9]|1\d)(\.\d)?$/)
    await figure(page, 'Messages out, a second', /^[12]\d(\.\d)?$/)
    const row = page.getByRole('row', { name: evil })
    await row.getByRole('cell', { name: '2', exact: true }).waitFor(patience)
    assert.equal(await page.title(), 'signaling-server')
    await page.locator('path.line[d]:not([d=""])').first().waitFor({ ...patience, state: 'attached' })
    clearInterval(chatter)
    await Promise.all(clients.map(client => client.close()))
    await figure(page, 'Connections', '0')
    await page.getByRole('row', { name: /^client 3$/ }).waitFor(patience)
    assert.deepEqual([...asked], [operator], 'it asks nobody else')
    assert.deepEqual(complaints, [])
    await page.context().close()
  })

  it('shows what is relayed and stored, where documents are relayed, and what was refused', async t => {
    const relay = await ours.start({ env: { SIGNALING_RELAY_MODE: 'memory' } })
    t.after(() => relay.kill())
    const page = await (await browser.newContext({ viewport: { width: 1200, height: 1100 } })).newPage()
    await page.goto(`${(await relay.line(/metrics on (http:\/\/[^/]+)/))[1]}/`)
    await figure(page, 'Stored', '0')
    const author = new Author(relay.url, 'plan', 'ana')
    t.after(() => author.leave())
    await until('the join', patience.timeout, () => author.joined)
    const writing = setInterval(() => author.write(), 50)
    await figure(page, 'Updates acknowledged, a second', /^(1\d|2\d)(\.\d)?$/)
    author.tell({ type: MessageType.DocUpdate, batchId: '0x0000000000000001', updates: [new Uint8Array([1, 2, 3])] })
    await page.getByRole('row', { name: 'update: invalid update 1' }).waitFor(patience)
    clearInterval(writing)
    await figure(page, 'Open in memory', '1')
    await figure(page, 'Stored', '1')
    if (process.env.SCREENSHOTS) await page.screenshot({ path: path.join(process.env.SCREENSHOTS, 'status-relay.png'), fullPage: true })
    await page.context().close()
  })

  for (const scheme of ['light', 'dark']) {
    it(`can be read in ${scheme}, on a desk and on a telephone`, async () => {
      const client = await subscriber(server.url, 'plan')
      const { page, complaints, state } = await open(scheme)
      await state('ready')
      await page.getByRole('row', { name: /^plan 1/ }).waitFor(patience)
      for (const { text, ratio } of await page.evaluate(contrasts)) assert.ok(ratio >= readable, `${text}: ${ratio}`)
      const [ground] = await page.evaluate(() => getComputedStyle(document.documentElement).getPropertyValue('--ground').match(/[\da-f]{2}/g))
      assert.equal(Number.parseInt(ground, 16) > 128, scheme === 'light')
      if (process.env.SCREENSHOTS) await page.screenshot({ path: path.join(process.env.SCREENSHOTS, `status-${scheme}.png`), fullPage: true })
      await page.setViewportSize({ width: 360, height: 740 })
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= 360), 'nothing is cut off')
      if (process.env.SCREENSHOTS) await page.screenshot({ path: path.join(process.env.SCREENSHOTS, `status-${scheme}-small.png`), fullPage: true })
      assert.deepEqual(complaints, [])
      await client.close()
      await page.context().close()
    })
  }

  it('says that the server drains, and then that there is no answer', async () => {
    const { page, state } = await open('dark')
    await state('ready')
    const client = await subscriber(server.url, 'plan')
    server.stop()
    await state('draining: still accepting')
    for (const { text, ratio } of await page.evaluate(contrasts)) assert.ok(ratio >= readable, `${text}: ${ratio}`)
    await server.stop()
    await state('no answer')
    for (const { text, ratio } of await page.evaluate(contrasts)) assert.ok(ratio >= readable, `${text}: ${ratio}`)
    await client.closed
  })
})

/** In the page: each visible text with how much it stands out from what is behind it. */
function contrasts () {
  const channels = color => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d')
    canvas.fillStyle = color
    canvas.fillRect(0, 0, 1, 1)
    return [...canvas.getImageData(0, 0, 1, 1).data]
  }
  const luminance = ([r, g, b]) => [r, g, b].map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0)
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = channels(getComputedStyle(at).backgroundColor)
      if (color[3] === 255) return color
    }
    return [255, 255, 255]
  }
  const told = [...document.body.querySelectorAll('*')].filter(element =>
    element.checkVisibility() && [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim() !== ''))
  return told.map(element => {
    const [light, dark] = [luminance(channels(getComputedStyle(element).color)), luminance(behind(element))].sort((a, b) => b - a)
    return { text: element.textContent.trim(), ratio: (light + 0.05) / (dark + 0.05) }
  })
}
