// From `new WebrtcProvider` to the first message over a data channel, in Chromium: y-webrtc, which is simple-peer.
//
//   node bench/simple-peer.mjs SIGNALING_URL [ROUNDS]
//
// The packages are those of e2e/: `npm ci` there first. Prints one line of JSON.
import { createRequire } from 'node:module'
import { existsSync } from 'node:fs'
import http from 'node:http'
import path from 'node:path'

const e2e = path.join(import.meta.dirname, '../e2e')
const require = createRequire(path.join(e2e, 'package.json'))
const { build } = require('esbuild')
const { chromium } = require('playwright-core')

const [signaling, rounds = '10'] = process.argv.slice(2)
const executablePath = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync)
const flags = ['--no-sandbox', '--allow-loopback-in-peer-connection', '--disable-features=WebRtcHideLocalIpsWithMdns', '--disable-gpu', '--no-first-run']

const page = `
  import * as Y from 'yjs'
  import { WebrtcProvider } from 'y-webrtc'

  window.begin = (room, server) => {
    const begun = performance.now()
    window.first = new Promise(resolve => {
      const listen = channel => channel.addEventListener('message', () => resolve(performance.now() - begun), { once: true })
      const Native = window.RTCPeerConnection
      window.RTCPeerConnection = class extends Native {
        constructor (...settings) {
          super(...settings)
          this.addEventListener('datachannel', event => listen(event.channel))
        }

        createDataChannel (...settings) {
          const channel = super.createDataChannel(...settings)
          listen(channel)
          return channel
        }
      }
    })
    window.provider = new WebrtcProvider(room, new Y.Doc(), { signaling: [server], peerOpts: { config: { iceServers: [] } } })
  }
`

const site = await serve()
const browser = await chromium.launch({ executablePath, args: flags })
try {
  const times = []
  for (let round = 0; round < Number(rounds); round++) times.push(await first(`bench-${round}`))
  times.sort((a, b) => a - b)
  const at = share => times[Math.round((times.length - 1) * share)]
  console.log(JSON.stringify({ first: { count: times.length, p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1) } }))
} finally {
  await browser.close()
  site.close()
}

/** How long the second page of a room waits for its first message. */
async function first (room) {
  const [ben, ana] = [await open(), await open()]
  await ben.evaluate(([room, server]) => window.begin(room, server), [room, signaling])
  await ben.waitForFunction(() => window.provider.signalingConns.every(connection => connection.connected), undefined, { polling: 10 })
  const time = await ana.evaluate(async ([room, server]) => {
    window.begin(room, server)
    return await window.first
  }, [room, signaling])
  await Promise.all([ben.context().close(), ana.context().close()])
  return time
}

async function open () {
  const context = await browser.newContext()
  const tab = await context.newPage()
  await tab.goto(`http://127.0.0.1:${site.address().port}/`)
  await tab.waitForFunction(() => window.begin)
  return tab
}

async function serve () {
  const { outputFiles } = await build({
    stdin: { contents: page, resolveDir: e2e }, bundle: true, write: false, format: 'esm', define: { global: 'globalThis' }
  })
  const server = http.createServer((request, response) => {
    response.setHeader('content-type', request.url === '/page.js' ? 'text/javascript' : 'text/html')
    response.end(request.url === '/page.js' ? outputFiles[0].text : '<!doctype html><script type="module" src="/page.js"></script>')
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  return server
}
