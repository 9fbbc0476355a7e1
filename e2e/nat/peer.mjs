// A peer: Chromium inside one home of the lab, with one RTCPeerConnection and one data channel.
import { existsSync } from 'node:fs'
import { chromium } from 'playwright-core'

const executable = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync)

const flags = [
  '--no-sandbox', // Chromium refuses to run as root with its sandbox.
  '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run'
]

export class Peer {
  /** A browser in `home` that trusts the key with this hash, on a page of `site`. */
  static async start (lab, home, { site, trustedKey }) {
    if (!executable) throw new Error('Chromium is missing: apt-get install chromium')
    const peer = new Peer()
    peer.browser = await chromium.launch({
      executablePath: lab.launcher(home, executable),
      args: [...flags, `--ignore-certificate-errors-spki-list=${trustedKey}`]
    })
    peer.page = await peer.browser.newPage()
    await peer.page.exposeFunction('tell', async candidate => {
      peer.found.add(candidate.candidate.match(/ typ (\S+)/)[1])
      await peer.tell(candidate)
    })
    await peer.page.goto(site)
    return peer
  }

  /** What `/ice` tells this page. */
  ice () {
    return this.page.evaluate(async () => {
      const response = await fetch('/ice')
      if (response.status !== 200) throw new Error(`GET /ice: ${response.status}`)
      return response.json()
    })
  }

  /** A new connection; its candidates go to `other` as they are found. */
  async begin (iceServers, other) {
    this.found = new Set()
    this.tell = candidate => other.page.evaluate(candidate => window.add(candidate), candidate)
    await this.page.evaluate(iceServers => {
      window.connection?.close()
      const connection = window.connection = new RTCPeerConnection({ iceServers })
      window.heard = []
      window.opened = channel => {
        window.channel = channel
        channel.onmessage = ({ data }) => window.heard.push(data)
      }
      connection.ondatachannel = ({ channel }) => window.opened(channel)
      connection.onicecandidate = ({ candidate }) => candidate?.candidate && window.tell(candidate.toJSON())
      // The other's candidates may come before its description.
      const described = new Promise(resolve => { window.described = resolve })
      window.add = candidate => described.then(() => connection.addIceCandidate(candidate))
    }, iceServers)
  }

  offer () {
    return this.page.evaluate(async () => {
      window.opened(window.connection.createDataChannel('plan'))
      await window.connection.setLocalDescription()
      return window.connection.localDescription.sdp
    })
  }

  answer (offer) {
    return this.page.evaluate(async offer => {
      await window.connection.setRemoteDescription({ type: 'offer', sdp: offer })
      window.described()
      await window.connection.setLocalDescription()
      return window.connection.localDescription.sdp
    }, offer)
  }

  answered (answer) {
    return this.page.evaluate(async answer => {
      await window.connection.setRemoteDescription({ type: 'answer', sdp: answer })
      window.described()
    }, answer)
  }

  /** Whether it gets connected in time. */
  async connects (ms) {
    const connected = () => ['connected', 'completed'].includes(window.connection.iceConnectionState)
    try {
      await this.page.waitForFunction(connected, null, { timeout: ms, polling: 50 })
      return true
    } catch (error) {
      if (error.name === 'TimeoutError') return false
      throw error
    }
  }

  /** Sends a message once the channel is open. */
  async say (message, ms) {
    await this.page.waitForFunction(() => window.channel?.readyState === 'open', null, { timeout: ms, polling: 20 })
    await this.page.evaluate(message => window.channel.send(message), message)
  }

  async hears (message, ms) {
    await this.page.waitForFunction(message => window.heard.includes(message), message, { timeout: ms, polling: 20 })
  }

  /** Sends for so many seconds; returns how many messages came meanwhile. */
  talk (rate, size, seconds) {
    return this.page.evaluate(async ([rate, size, seconds]) => {
      const before = window.heard.length
      const message = 'x'.repeat(size)
      const start = performance.now()
      for (let sent = 0, now; (now = (performance.now() - start) / 1000) < seconds;) {
        for (; sent < now * rate; sent++) window.channel.send(message)
        await new Promise(resolve => setTimeout(resolve, 5))
      }
      return window.heard.length - before
    }, [rate, size, seconds])
  }

  /** The local candidate that is in use: its type, and for a relay how it is reached. */
  path () {
    return this.page.evaluate(async () => {
      const stats = new Map([...await window.connection.getStats()])
      const transport = [...stats.values()].find(entry => entry.type === 'transport')
      const { candidateType, relayProtocol } = stats.get(stats.get(transport.selectedCandidatePairId).localCandidateId)
      return relayProtocol ? `${candidateType} over ${relayProtocol}` : candidateType
    })
  }

  close () { return this.browser.close() }
}

export const onlyStun = ({ iceServers }) => iceServers.filter(({ username }) => !username)

/** Lets two peers make a connection. Each asks /ice for itself, unless it is told which servers to use. */
export async function connect (ana, ben, servers) {
  await ana.begin(servers ?? (await ana.ice()).iceServers, ben)
  await ben.begin(servers ?? (await ben.ice()).iceServers, ana)
  await ana.answered(await ben.answer(await ana.offer()))
}
