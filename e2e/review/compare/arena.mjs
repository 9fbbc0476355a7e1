// Where the two are compared: two homes behind NATs, coturn, a signaling server for each, and the same browsers for both.
import { createHmac } from 'node:crypto'
import path from 'node:path'
import { chromium } from 'playwright-core'
import { Lab, SERVER, TURN } from '../../nat/lab.mjs'
import { listening, makeCertificate, secret, signalingServer, startTurn } from '../../nat/services.mjs'
import { executable, flags } from '../pages.mjs'
import { buildPages } from './site.mjs'

const web = path.join(import.meta.dirname, '../../../peer-sdk/web')
const reference = path.join(import.meta.dirname, '../../node_modules/y-webrtc/bin/server.js')
/** The only ports that every network lets out are 80 and 443, and TURN has both of its own address. */
const site = `http://${TURN}`
const signal = { ours: `ws://${SERVER}:80`, 'y-webrtc': `ws://${SERVER}:443` }
const startMs = 20_000

export class Arena {
  static async open ({ lines = false } = {}) {
    const self = new Arena()
    const lab = self.lab = new Lab({ lines })
    self.browsers = new Map()
    self.rooms = 0
    try {
      self.trustedKey = makeCertificate(lab)
      await Promise.all([startTurn(lab, ''), self.startSignaling(), self.startSite()])
    } catch (error) {
      await self.close()
      throw error
    }
    return self
  }

  async startSignaling () {
    const { lab } = this
    const ours = lab.spawn('server', 'ours', [signalingServer, '--listen', `${SERVER}:80`, '--metrics-listen', '127.0.0.1:0'])
    await listening(lab, ours, 'ours.log', () => lab.log('ours.log').includes('listening on'))
    const theirs = lab.spawn('server', 'theirs', [process.execPath, reference], { PORT: '443' })
    await listening(lab, theirs, 'theirs.log', () => lab.log('theirs.log').includes('running'))
  }

  async startSite () {
    const { lab } = this
    const root = lab.file('site')
    await buildPages(root)
    const child = lab.spawn('turn', 'site', [process.execPath, path.join(web, 'examples/review/serve.mjs'), '--host', TURN, '--port', '80', '--root', root])
    await listening(lab, child, 'site.log', () => lab.log('site.log').includes('review page is at'))
  }

  /** The browser of a host; it stays until it is killed. */
  async browser (host) {
    const known = this.browsers.get(host)
    if (known?.isConnected()) return known
    const args = [...flags, `--ignore-certificate-errors-spki-list=${this.trustedKey}`, `--unsafely-treat-insecure-origin-as-secure=${site}`]
    const browser = await chromium.launch({ executablePath: this.lab.launcher(host, executable), args })
    this.browsers.set(host, browser)
    return browser
  }

  /** Kills everything that runs on a host, as a power cut does: nobody is told. */
  async kill (host) {
    const browser = this.browsers.get(host)
    const gone = new Promise(resolve => browser.once('disconnected', resolve))
    for (const pid of this.lab.pids(host)) process.kill(pid, 'SIGKILL')
    await gone
  }

  room () { return `room-${++this.rooms}` }

  /**
   * A window with nothing in it, in a browser context of its own. Chromium is busy for most of a second after it has opened
   * one, with pages of its own for the address bar.
   */
  async window (host) {
    const context = await (await this.browser(host)).newContext()
    return await context.newPage()
  }

  /** Opens the page of `sdk`, in a window of its own if none is given. `ice` says which kinds of servers it is told of. */
  async join (sdk, host, room, ice, page) {
    page ??= await this.window(host)
    const query = new URLSearchParams({ name: host, room, signal: signal[sdk], ice: JSON.stringify(servers(ice)) })
    const self = new Someone(page)
    page.on('pageerror', error => { self.errors.push(String(error)) })
    await page.goto(`${site}/${sdk}.html?${query}`, { waitUntil: 'commit' })
    return self
  }

  /** Somebody who is there and has something, for others to come. */
  async first (sdk, host, room, ice, page) {
    const first = await this.join(sdk, host, room, ice, page)
    await first.until('signaling', () => window.lab?.ready(), undefined, startMs)
    await first.write('first')
    return first
  }

  /** The line of a home is dead, and nobody in it is told; returns what brings it back. */
  cut (home) {
    this.lab.ip(`router-${home}`, 'link set wan down')
    return () => this.lab.ip(`router-${home}`, 'link set wan up')
  }

  /** A home gets another public address; returns what takes it back. */
  rebind (home) {
    const number = home === 'a' ? 101 : 102
    const move = (from, to) => this.lab.ip(`router-${home}`, `addr del 203.0.113.${from}/24 dev wan`, `addr add 203.0.113.${to}/24 dev wan`)
    move(number, number + 50)
    return () => move(number + 50, number)
  }

  async close () {
    await Promise.all([...this.browsers.values()].map(browser => browser.close().catch(() => {})))
    this.lab.close()
  }
}

/** What is told to a page, with credentials as `/ice` makes them. */
function servers (kinds) {
  const username = `${Math.floor(Date.now() / 1000) + 3600}`
  const credential = createHmac('sha1', secret).update(username).digest('base64')
  const urls = { stun: `stun:${TURN}:3478`, udp: `turn:${TURN}:3478?transport=udp`, tcp: `turn:${TURN}:3478?transport=tcp`, tls: `turns:${TURN}:443?transport=tcp` }
  return kinds.map(kind => kind === 'stun' ? { urls: urls.stun } : { urls: urls[kind], username, credential })
}

/** One open page. */
export class Someone {
  constructor (page) {
    this.context = page.context()
    this.page = page
    this.errors = []
  }

  ask (about, given) { return this.page.evaluate(about, given) }
  write (name) { return this.ask(name => window.lab.write(name), name) }
  marks () { return this.ask(() => window.lab.marks) }
  seen () { return this.ask(() => window.lab.seen) }
  sent () { return this.ask(() => window.lab.sent()) }

  /** Milliseconds until this holds; `undefined` if not within `ms`. */
  async waits (holds, given, ms, polling = 20) {
    const started = performance.now()
    try {
      await this.page.waitForFunction(holds, given, { timeout: ms, polling })
      return performance.now() - started
    } catch (error) {
      if (error.name === 'TimeoutError') return undefined
      throw error
    }
  }

  async until (what, holds, given, ms) {
    if (await this.waits(holds, given, ms) === undefined) throw new Error(`not within ${ms} ms: ${what} ${this.errors.join('\n')}`)
  }

  leave () { return this.context.close().catch(() => {}) }
}
