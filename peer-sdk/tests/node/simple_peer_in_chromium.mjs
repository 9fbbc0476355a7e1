// A simple-peer in a page of Chromium, told what to do like simple_peer.mjs. As for any page that may not listen or look,
// the browser gives out names in place of its addresses.
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import http from 'node:http'
import { createRequire } from 'node:module'
import path from 'node:path'
import { createInterface } from 'node:readline'

const e2e = path.join(import.meta.dirname, '../../../e2e')
const require = createRequire(path.join(e2e, 'package.json'))
const { build } = require('esbuild')
const { chromium } = require('playwright-core')

const executablePath = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync)
const flags = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run']

const contents = `
  import Peer from 'simple-peer/simplepeer.min.js'
  import { act } from ${JSON.stringify(path.join(import.meta.dirname, 'deeds.mjs'))}
  window.begin = (initiator, channelName) => {
    window.deeds = act(Peer, { initiator, channelName, config: { iceServers: [] } }, window.say)
  }
`
const bundle = await build({
  stdin: { contents, resolveDir: e2e }, bundle: true, write: false, format: 'iife', define: { global: 'globalThis' }, logLevel: 'warning'
})
const site = http.createServer((request, response) => {
  const isScript = request.url === '/page.js'
  response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html')
  response.end(isScript ? bundle.outputFiles[0].text : '<!doctype html><script src="/page.js"></script>')
})
site.listen(0, '127.0.0.1')
await once(site, 'listening')

const [role, channelName] = process.argv.slice(2)
const say = line => process.stdout.write(JSON.stringify(line) + '\n')
const browser = await chromium.launch({ executablePath, args: flags })
const page = await browser.newPage()
await page.exposeFunction('say', say)
page.on('pageerror', error => say({ event: 'error', message: String(error) }))
await page.goto(`http://127.0.0.1:${site.address().port}/`)
await page.evaluate(([initiator, channelName]) => window.begin(initiator, channelName), [role === 'initiator', channelName])
say({ event: 'ready' })

for await (const line of createInterface({ input: process.stdin })) {
  await page.evaluate(deed => { window.deeds[deed.do](deed) }, JSON.parse(line))
}
await browser.close()
site.close()
