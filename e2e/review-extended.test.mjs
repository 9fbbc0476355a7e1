// Two repositories of loro-extended in two browsers, with this SDK's network adapter between them.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { serveFiles } from './browser.mjs'
import { relay } from './relay/peers.mjs'
import { launch } from './review/pages.mjs'

const web = path.join(import.meta.dirname, '../peer-sdk/web')
const stepMs = 20_000

let browser, site
before(async () => {
  site = await serve()
  browser = await launch()
})
after(async () => {
  await browser?.close()
  site?.server.close()
})

/** The page, bundled with one copy of Loro. */
async function serve () {
  const { build } = await import(path.join(web, 'node_modules/esbuild/lib/main.js'))
  const loro = path.join(web, 'node_modules/loro-crdt/web')
  const oneLoro = { name: 'one loro', setup: ({ onResolve }) => onResolve({ filter: /^loro-crdt(\/web)?$/ }, () => ({ path: path.join(loro, 'index.js') })) }
  const { outputFiles } = await build({ entryPoints: [path.join(web, 'test/pages/extended.js')], bundle: true, format: 'esm', target: 'es2022', write: false, plugins: [oneLoro], logLevel: 'warning' })
  const files = {
    '/': ['text/html', await readFile(path.join(web, 'test/pages/extended.html'))],
    '/extended.js': ['text/javascript', outputFiles[0].contents],
    '/loro_wasm_bg.wasm': ['application/wasm', await readFile(path.join(loro, 'loro_wasm_bg.wasm'))]
  }
  return serveFiles(files)
}

let peers = 0
async function open (signal, room, name) {
  const context = await browser.newContext()
  const page = await context.newPage()
  const said = []
  page.on('console', message => said.push(message.text()))
  page.on('pageerror', error => said.push(String(error)))
  await page.goto(`${site.url}/?${new URLSearchParams({ signal, room, name, peer: String(1000 + ++peers) })}`)
  const until = async (what, holds, argument) => {
    await page.waitForFunction(holds, argument, { timeout: stepMs, polling: 20 }).catch(error => {
      throw new Error(`${name} has not got ${what}: ${error.message}\n${said.join('\n')}`)
    })
  }
  return {
    connects: count => until(`${count} connections`, count => window.extended?.adapter.connected === count, count),
    write: text => page.evaluate(text => window.extended.write(text), text),
    reads: text => until(text.slice(0, 20), text => window.extended.text() === text, text),
    text: () => page.evaluate(() => window.extended.text()),
    leave: () => context.close()
  }
}

describe('repositories of loro-extended', { timeout: 180_000 }, () => {
  it('find each other, and keep their documents in step, a long one too', async t => {
    const server = await relay(t)
    const [ana, ben] = await Promise.all(['Ana', 'Ben'].map(name => open(server.url, 'extended', name)))
    await Promise.all([ana.connects(1), ben.connects(1)])
    await ana.write('hello')
    await ben.reads('hello')
    await ben.write('well ')
    await ana.reads('well hello')
    const long = Array.from({ length: 40_000 }, (_, n) => (n * 2654435761 >>> 0).toString(36)).join('')
    await ana.write(long)
    await ben.reads(`${long}well hello`)
    await ben.leave()
    await ana.connects(0)
    await ana.write('alone ')
    const cem = await open(server.url, 'extended', 'Cem')
    await cem.reads(await ana.text())
    assert.ok((await cem.text()).startsWith('alone '))
    await Promise.all([ana, cem].map(page => page.leave()))
  })

  it('go on without signaling', async t => {
    const server = await relay(t)
    const [ana, ben] = await Promise.all(['Ana', 'Ben'].map(name => open(server.url, 'without', name)))
    await Promise.all([ana.connects(1), ben.connects(1)])
    await server.kill()
    await ana.write('still here')
    await ben.reads('still here')
    await Promise.all([ana, ben].map(page => page.leave()))
  })
})
