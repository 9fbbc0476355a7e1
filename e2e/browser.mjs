// Headless Chromium with one page for each participant, every page in a browser context of its own.
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { once } from 'node:events'
import http from 'node:http'
import path from 'node:path'
import { build } from 'esbuild'
import { chromium } from 'playwright-core'

const stepMs = 60_000

export const executable = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync)

const flags = [
  '--no-sandbox', // Chromium refuses to run as root, as in a container, with its sandbox.
  // Both are needed for WebRTC on a machine that has no network but loopback.
  '--allow-loopback-in-peer-connection', '--disable-features=WebRtcHideLocalIpsWithMdns',
  '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run'
]

/** A browser and the page it loads. */
export class Browser {
  static async launch () {
    if (!executable) throw new Error('Chromium is missing: apt-get install chromium')
    const self = new Browser()
    self.site = await serve()
    self.chromium = await chromium.launch({ executablePath: executable, args: flags })
    return self
  }

  /** Opens the page as `name`; `server` is the signaling server's URL. */
  async join ({ name, room, server, password }) {
    const context = await this.chromium.newContext()
    const page = await context.newPage()
    const participant = new Participant(name, context, page)
    page.on('console', message => participant.console.push(message.text()))
    page.on('pageerror', error => participant.console.push(`uncaught: ${error}`))
    const query = new URLSearchParams({ name, room, server, ...(password === undefined ? {} : { password }) })
    await page.goto(`${this.site.url}/?${query}`)
    return participant
  }

  async close () {
    await this.chromium?.close()
    this.site?.server.close()
  }
}

class Participant {
  constructor (name, context, page) {
    this.name = name
    this.context = context
    this.page = page
    this.console = []
  }

  write (text) { return this.page.evaluate(text => window.participant.write(text), text) }
  text () { return this.page.evaluate(() => window.participant.text()) }
  moveCursor (cursor) { return this.page.evaluate(cursor => window.participant.moveCursor(cursor), cursor) }
  hide () { return this.page.evaluate(() => window.participant.hide()) }
  cursors () { return this.page.evaluate(() => window.participant.cursors()) }
  links () { return this.page.evaluate(() => window.participant.links().length) }
  disconnects () { return this.page.evaluate(() => window.participant.disconnects()) }
  sinceLastMessage () { return this.page.evaluate(() => window.participant.sinceLastMessage()) }
  dataChannelMessages () { return this.page.evaluate(() => window.participant.dataChannelMessages()) }
  tabsHeard () { return this.page.evaluate(() => window.participant.tabsHeard()) }

  hasLinks (count) { return this.until(`${count} links`, count => window.participant.links().length === count, count) }
  hasSignaling () { return this.until('signaling', () => window.participant.signaling()) }
  hasNoSignaling () { return this.until('no signaling', () => !window.participant.signaling()) }
  reads (text) { return this.until(`the text "${text}"`, text => window.participant.text() === text, text) }
  sees (name, cursor) {
    return this.until(`${name} at ${cursor}`, ([name, cursor]) => window.participant.cursors()[name] === cursor, [name, cursor])
  }

  async until (what, holds, argument) {
    try {
      await this.page.waitForFunction(holds, argument, { timeout: stepMs, polling: 50 })
    } catch (error) {
      throw new Error(`${this.name} has not got ${what}: ${error.message}\nits console:\n${this.console.join('\n')}`)
    }
  }

  leave () { return this.context.close() }
}

async function serve () {
  const here = import.meta.dirname
  const bundle = await build({
    entryPoints: [path.join(here, 'page/page.js')],
    bundle: true,
    write: false,
    format: 'iife',
    platform: 'browser',
    // simple-peer expects Node's name for the global object.
    define: { global: 'globalThis' },
    logLevel: 'warning'
  })
  const files = {
    '/': ['text/html', await readFile(path.join(here, 'page/index.html'))],
    '/page.js': ['text/javascript', bundle.outputFiles[0].contents]
  }
  return serveFiles(files)
}

/** Serves `files`, each a type and a content by its path. */
export async function serveFiles (files) {
  const server = http.createServer((request, response) => {
    const file = files[new URL(request.url, 'http://site').pathname]
    if (!file) return response.writeHead(404).end()
    response.writeHead(200, { 'Content-Type': file[0] }).end(file[1])
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { server, url: `http://127.0.0.1:${server.address().port}` }
}
