// The review in the lab of namespaces: a signaling server that relays, coturn, the page, and a browser in each home.
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { chromium } from 'playwright-core'
import { SERVER, TURN } from '../nat/lab.mjs'
import { listening, makeCertificate, secret, startTurn } from '../nat/services.mjs'
import { Agent } from '../../peer-sdk/web/examples/story/agent.mjs'
import { ourBinary } from '../servers.mjs'
import { executable, flags, fragment, Reviewer } from './pages.mjs'

const web = path.join(import.meta.dirname, '../../peer-sdk/web')
const examples = process.env.E2E_EXAMPLES ?? path.join(path.dirname(ourBinary), 'examples')
const mcpServer = path.join(examples, 'mcp_server')
/** A reviewer at a terminal. */
export const annotate = path.join(examples, 'annotate')
/** The only ports that every network lets out are 80 and 443, and those of the server are taken. */
const page = `http://${TURN}`
export const signal = `ws://${SERVER}`

export class Meeting {
  static async start (lab) {
    const self = new Meeting()
    self.lab = lab
    const trustedKey = makeCertificate(lab)
    await Promise.all([startTurn(lab, ''), self.startServer(), self.startPage()])
    lab.nat('cone')
    const args = [...flags, `--ignore-certificate-errors-spki-list=${trustedKey}`, `--unsafely-treat-insecure-origin-as-secure=${page}`]
    self.browsers = Object.fromEntries(await Promise.all(['a', 'b'].map(async home =>
      [home, await chromium.launch({ executablePath: lab.launcher(home, executable), args })])))
    self.rooms = 0
    return self
  }

  async startServer () {
    const { lab } = this
    const starts = () => lab.log('server.log').split('listening on').length
    const before = starts()
    writeFileSync(lab.file('turn.secret'), secret)
    this.server = lab.spawn('server', 'server', [ourBinary, '--listen', `${SERVER}:80`, '--metrics-listen', '127.0.0.1:0'], {
      SIGNALING_RELAY_MODE: 'memory',
      SIGNALING_ICE_STUN: `stun:${TURN}:3478`,
      SIGNALING_ICE_TURN: `turn:${TURN}:3478?transport=udp,turns:${TURN}:443?transport=tcp`,
      SIGNALING_ICE_SECRET_FILES: lab.file('turn.secret')
    })
    await listening(lab, this.server, 'server.log', () => starts() > before)
  }

  async startPage () {
    const { lab } = this
    const root = lab.file('page')
    const build = `import('${path.join(web, 'examples/review/build.mjs')}').then(({ buildReview }) => buildReview(${JSON.stringify(root)}))`
    execFileSync(process.execPath, ['-e', build], { cwd: web })
    const child = lab.spawn('turn', 'page', [process.execPath, path.join(web, 'examples/review/serve.mjs'), '--host', TURN, '--port', '80', '--root', root])
    await listening(lab, child, 'page.log', () => lab.log('page.log').includes('review page is at'))
  }

  /**
   * A reviewer in a home, with a link, who lets the page reach programs on the own machine: browsers ask before a page from
   * elsewhere may dial a hub there.
   */
  open (home, link, name, options) {
    return Reviewer.open(this.browsers[home], link, name, { permissions: ['local-network-access'], ...options })
  }

  /** An agent in a home, and its MCP server, which is a hub for this home alone. */
  async agent (t, home, folder, flags = []) {
    const server = ['--dir', folder, '--page', `${page}/`, '--signal', signal, '--ice', `http://${SERVER}/ice`, '--listen', '127.0.0.1:7450', '--token', 'the-token-of-the-hub', ...flags]
    const agent = await Agent.start('ip', ['netns', 'exec', this.lab.name(home), mcpServer, ...server])
    t.after(() => agent.stop())
    return agent
  }

  /** The signaling server dies, as by a power cut. */
  async killServer () {
    const gone = once(this.server, 'exit')
    this.server.kill('SIGKILL')
    await gone
  }

  /** A room of its own: two reviewers, one in each home, who both have the plan. Without `ice` there is no STUN and no TURN. */
  async meet ({ nat, withRelay = false, ice = true } = {}) {
    this.lab.nat(nat)
    const room = `lab-${++this.rooms}`
    const url = `${page}/${fragment({ room, signal, hub: withRelay ? signal : undefined, ice: ice ? `http://${SERVER}/ice` : undefined })}`
    const ana = await Reviewer.open(this.browsers.a, url, 'Ana')
    await ana.start()
    await ana.hasPlan()
    const ben = await Reviewer.open(this.browsers.b, url, 'Ben')
    await ben.hasPlan()
    const firstSync = await ben.page.evaluate(() => Math.round(window.planAt))
    await Promise.all([ana, ben].map(reviewer => reviewer.counts(2)))
    return { ana, ben, room, url, firstSync }
  }

  /** The line of a home is dead, and nobody in it is told; returns what brings it back. */
  cut (home) {
    const router = `router-${home}`
    this.lab.ip(router, 'link set wan down')
    return () => this.lab.ip(router, 'link set wan up')
  }

  /** A home gets another public address. */
  rebind (home) {
    const number = home === 'a' ? 101 : 102
    const move = (from, to) => this.lab.ip(`router-${home}`, `addr del 203.0.113.${from}/24 dev wan`, `addr add 203.0.113.${to}/24 dev wan`)
    move(number, number + 50)
    return () => move(number + 50, number)
  }

  async close () { await Promise.all(Object.values(this.browsers ?? {}).map(browser => browser.close())) }
}
