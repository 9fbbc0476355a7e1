// The review page in headless Chromium: every reviewer in a browser context of its own.
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { chromium } from 'playwright-core'

const web = path.join(import.meta.dirname, '../../peer-sdk/web')
const stepMs = 30_000
/** Where pictures of key moments are kept. */
const pictures = process.env.E2E_SCREENSHOTS ?? path.join(os.tmpdir(), 'review-screenshots')

export const executable = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync)

/** Chromium without a sandbox, as in a container, and without traffic of its own. */
export const flags = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run']
/** Both are needed for WebRTC on a machine that has no network but loopback. */
export const loopbackFlags = ['--allow-loopback-in-peer-connection', '--disable-features=WebRtcHideLocalIpsWithMdns']

/** The page, built and served on a port of its own. */
export async function site (options = {}) {
  const root = await mkdtemp(path.join(os.tmpdir(), 'review-'))
  const [{ buildReview }, { serveReview }] = await Promise.all(['build', 'serve'].map(name => import(path.join(web, `examples/review/${name}.mjs`))))
  await buildReview(root)
  const start = port => serveReview(root, { port, ...options })
  let served = await start(0)
  const port = served.server.address().port
  return {
    root,
    url: served.url,
    stop: () => { served.server.closeAllConnections(); served.server.close() },
    start: async () => { served = await start(port) },
    close: async () => {
      served.server.closeAllConnections()
      served.server.close()
      await rm(root, { recursive: true, force: true })
    }
  }
}

export async function launch (options = {}) {
  if (!executable) throw new Error('Chromium is missing: apt-get install chromium')
  return chromium.launch({ executablePath: executable, args: [...flags, ...loopbackFlags], ...options })
}

/** The fragment of a link to share. */
export function fragment ({ room, hub, signal, ice, password }) {
  const values = Object.entries({ room, hub, signal, ice, password }).filter(([, value]) => value !== undefined)
  return `#${values.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&')}`
}

/** Somebody with the page open. */
export class Reviewer {
  /** Opens the page at `url` as `name`, in a context of its own or, with `beside`, in another tab of that one's browser. */
  static async open (browser, url, name, { withoutWebRtc = false, beside, viewport, permissions = [] } = {}) {
    const context = beside?.context ?? await browser.newContext(viewport ? { viewport } : {})
    await context.grantPermissions(permissions)
    const page = await context.newPage()
    const self = new Reviewer(name, context, page)
    page.on('console', message => self.console.push(message.text()))
    page.on('pageerror', error => { self.errors.push(String(error)) })
    await page.addInitScript(name => { localStorage.setItem('review name', name) }, name)
    await page.addInitScript(withoutWebRtc => {
      const Real = window.RTCPeerConnection
      window.connections = []
      window.RTCPeerConnection = class extends Real {
        constructor (...given) {
          super(...given)
          window.connections.push(this)
          this.addEventListener('datachannel', ({ channel }) => listen(channel, 'data channel'))
        }

        createDataChannel (...given) { return listen(super.createDataChannel(...given), 'data channel') }
      }
      // What comes and goes, and when: so that it can be told by which way something came first.
      window.frames = []
      const note = (way, data) => {
        if (typeof data !== 'string') window.frames.push({ at: performance.now(), way, bytes: Array.from(new Uint8Array(data.buffer ?? data), byte => String.fromCharCode(byte)).join('') })
      }
      const listen = (channel, way) => {
        channel.addEventListener('message', ({ data }) => note(`from ${way}`, data))
        return channel
      }
      const RealSocket = window.WebSocket
      window.WebSocket = class extends RealSocket {
        constructor (...given) {
          super(...given)
          listen(this, 'hub')
        }

        send (data) {
          note('to hub', data)
          super.send(data)
        }
      }
      // How long after the navigation the plan is on the screen.
      const observer = new MutationObserver(() => {
        if (document.querySelector('[data-step]') === null) return
        window.planAt = performance.now()
        observer.disconnect()
      })
      observer.observe(document, { childList: true, subtree: true })
      if (withoutWebRtc) delete window.RTCPeerConnection
    }, withoutWebRtc)
    await page.goto(url)
    return self
  }

  constructor (name, context, page) {
    this.name = name
    this.context = context
    this.page = page
    this.console = []
    this.errors = []
  }

  /** Writes the sample plan. */
  async start () { await this.page.getByRole('button', { name: 'Write a sample plan instead' }).click() }

  /** Annotates the step of this number by hand, as a person would; gives the time at which it was entered. */
  async annotate (step, said) {
    await this.page.getByRole('button', { name: `Annotate step ${step}` }).click()
    await this.page.getByRole('textbox', { name: `Annotate step ${step}` }).fill(said)
    const entered = performance.now()
    await this.page.keyboard.press('Control+Enter')
    return entered
  }

  /** Waits until an annotation or a reply is on the screen. */
  reads (said) {
    return this.until(`"${said}" on the screen`, said => [...document.querySelectorAll('.said')].some(element => element.textContent === said), said)
  }

  hasPlan () { return this.until('the plan', () => document.querySelectorAll('[data-step]').length === 4) }

  /** Waits until so many reviewers are online, on the screen. */
  counts (count, ms) {
    const words = count === 1 ? '1 reviewer online' : `${count} reviewers online`
    return this.until(words, words => document.querySelector('#online')?.textContent === words, words, ms)
  }

  /** Waits until the agent is shown as what it is. */
  seesAgent () { return this.until('the agent', () => /^agent, /.test(document.querySelector('.person[data-agent] small')?.textContent ?? '')) }
  seesNoAgent () { return this.until('the agent gone', () => document.querySelector('.person[data-agent]') === null) }

  /** By which ways these words came and went, in order. */
  waysOf (said) { return this.page.evaluate(said => window.frames.filter(({ bytes }) => bytes.includes(said)).map(({ way }) => way), said) }

  /** Keeps a picture of the page as it is now. */
  async picture (moment) {
    await mkdir(pictures, { recursive: true })
    await this.page.evaluate(() => { window.scrollTo(0, 0) })
    await this.page.screenshot({ path: path.join(pictures, `${moment}-${this.name.toLowerCase()}.png`) })
  }

  online () { return this.page.evaluate(() => document.querySelector('#online')?.textContent) }

  /** What the page says of one of the ways. */
  says (way) { return this.page.locator(`[data-way="${way}"] span`).textContent() }

  /** How the others are reached, by name. */
  paths () {
    return this.page.evaluate(() => Object.fromEntries(window.review.peer.presence.peers.map(({ shows, path }) => [shows?.name, path])))
  }

  /** Waits until everybody else is reached this way. */
  reaches (count, way) {
    return this.until(`${count} reached ${way}`, ([count, way]) => {
      const paths = window.review.peer.presence.peers.map(({ path }) => path)
      return paths.length === count && paths.every(path => path === way)
    }, [count, way])
  }

  status () { return this.page.evaluate(() => window.review.peer.status) }
  notes () { return this.page.evaluate(() => JSON.stringify(window.review.doc.toJSON().annotations ?? [])) }
  document () { return this.page.evaluate(() => JSON.stringify(window.review.doc.toJSON())) }
  caughtUp () { return this.page.evaluate(() => window.review.peer.caughtUp()) }
  stored () { return this.until('everything stored', () => window.review.peer.status.storage === 'kept' && window.review.peer.status.stored) }

  /** The pairs of candidates in use, as `host/srflx`. */
  pairs () {
    return this.page.evaluate(async () => {
      const pairs = []
      for (const connection of window.connections.filter(({ connectionState }) => connectionState === 'connected')) {
        const stats = await connection.getStats()
        const transport = [...stats.values()].find(({ type }) => type === 'transport')
        const pair = stats.get(transport?.selectedCandidatePairId)
        if (pair) pairs.push([pair.localCandidateId, pair.remoteCandidateId].map(id => stats.get(id)?.candidateType).join('/'))
      }
      return pairs
    })
  }

  async until (what, holds, argument, ms = stepMs) {
    try {
      await this.page.waitForFunction(holds, argument, { timeout: ms, polling: 20 })
    } catch (error) {
      throw new Error(`${this.name} has not got ${what} within ${ms} ms: ${error.message}\n${await this.tale()}`)
    }
  }

  /** For whoever has to find out why. */
  async tale () {
    const status = await this.status().catch(error => String(error))
    const engine = await this.page.evaluate(() => {
      const { engine } = window.review.peer.driver
      return [...engine.links].map(([id, link]) => ({ id, session: engine.sessionOf(id), present: link.present, live: link.live }))
    }).catch(error => String(error))
    return `its status: ${JSON.stringify(status)}\nits links: ${JSON.stringify(engine)}\nits errors: ${this.errors.join('\n')}\nits console: ${this.console.slice(-10).join('\n')}`
  }

  /** Ends the tab as a crash does: nobody is told. */
  async crash () {
    const session = await this.context.newCDPSession(this.page)
    session.send('Page.crash').catch(() => {})
    await new Promise(resolve => this.page.once('crash', resolve))
  }

  leave () { return this.context.close() }
}
