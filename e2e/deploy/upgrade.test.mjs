// An old server makes way for a new one while people work. E2E_OLD_SIGNALING_SERVER names the old one; without, it is the
// same program, in a process of its own.
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, describe, it } from 'node:test'
import { promised } from '../promise.mjs'
import { Author, found } from './author.mjs'
import { Crowd, densest } from './crowd.mjs'
import { folder, freePort, get, kit, missing, signalingServer, start, stop, until } from './processes.mjs'

const patienceMs = 20_000
const oldServer = process.env.E2E_OLD_SIGNALING_SERVER ?? signalingServer
const size = 60
const crowds = []
after(() => crowds.forEach(crowd => crowd.leave()))

function crowdAt (url) {
  const crowd = new Crowd(url, { size, perRoom: 6, everyMs: 100 })
  crowds.push(crowd)
  return crowd
}

async function serve (program, { port, readyWait = '0s', window = '2s', data }) {
  const metricsPort = await freePort()
  const server = start(program, ['--listen', `127.0.0.1:${port}`, '--metrics-listen', `127.0.0.1:${metricsPort}`], {
    env: { SIGNALING_DRAIN_READY_WAIT: readyWait, SIGNALING_DRAIN_WINDOW: window, ...(data && { SIGNALING_RELAY_MODE: 'disk', SIGNALING_RELAY_DATA_DIR: data }) }
  })
  await until('a server', patienceMs, () => /listening on/.test(server.output()))
  server.metric = async series => Number((await get(`http://127.0.0.1:${metricsPort}/metrics`)).match(new RegExp(`^${series} (.*)$`, 'm'))[1])
  return server
}

describe('an upgrade under load', { concurrency: true, timeout: 120_000 }, () => {
  it('in place: everybody is back soon, not all at once, and hears the others again', async t => {
    const port = await freePort()
    const old = await serve(oldServer, { port })
    const crowd = crowdAt(`ws://127.0.0.1:${port}`)
    await crowd.allConnected(patienceMs)
    crowd.connects.length = 0
    await stop(old)
    const startedAt = performance.now()
    const renewed = await serve(signalingServer, { port })
    await until('everybody back', patienceMs, () => crowd.gaps.length >= size)
    await crowd.allConnected(patienceMs)
    const returns = crowd.connects.filter(time => time > startedAt)
    assert.equal(returns.length, size)
    assert.ok(densest(returns, 100) < 0.5, `half of them came at once: ${densest(returns, 100)}`)
    promised(t, 'the last was back', Math.max(...returns) - startedAt, 5_000)
    crowd.heard = 0
    await until('everybody hears', patienceMs, () => crowd.heard > size * 6)
    assert.equal(await renewed.metric('signaling_connections'), size)
    assert.equal(await renewed.metric('signaling_rooms'), size / 6)
  })

  it('beside the old one, behind HAProxy: nobody is without a server for long, and the returns are spread over the window',
    { skip: missing('haproxy') }, async t => {
      const [port, oldPort, newPort] = await Promise.all([freePort(), freePort(), freePort()])
      const old = await serve(oldServer, { port: oldPort, readyWait: '2s' })
      const proxy = startHaproxy(port, oldPort, newPort)
      await until('the proxy', patienceMs, () => get(`http://127.0.0.1:${port}/readyz`))
      const crowd = crowdAt(`ws://127.0.0.1:${port}`)
      await crowd.allConnected(patienceMs)
      const renewed = await serve(signalingServer, { port: newPort })
      await until('the proxy to know', patienceMs, () => /server two is UP|Server signaling\/two is UP/i.test(proxy.output()))
      crowd.connects.length = 0
      await stop(old)
      await until('everybody back', patienceMs, () => crowd.gaps.length >= size)
      await crowd.allConnected(patienceMs)
      assert.equal(crowd.gaps.length, size, 'each was closed once')
      promised(t, 'somebody was without a server', Math.max(...crowd.gaps), 1_000)
      assert.ok(densest(crowd.connects, 500) < 0.5, `half of them came at once: ${densest(crowd.connects, 500)}`)
      assert.equal(await renewed.metric('signaling_connections'), size)
      assert.equal(await renewed.metric('signaling_rooms'), size / 6)
      await stop(proxy)
    })
})

describe('an upgrade of a relay and the way back, under load', { timeout: 60_000 }, () => {
  it('lose nothing that was acknowledged, though those who wrote it do not come back', async () => {
    const [port, data] = [await freePort(), path.join(folder(), 'data')]
    const url = `ws://127.0.0.1:${port}`
    const old = await serve(oldServer, { port, data })
    const authors = Array.from({ length: 20 }, (_, index) => new Author(url, `plan-${index % 5}`, `author ${index}`))
    const writing = setInterval(() => authors.forEach(author => author.write()), 20)
    await until('promises', patienceMs, () => authors.every(author => author.acked > 20))
    const draining = stop(old)
    // All who were in two of the rooms leave for good as soon as they are cut off: nobody can bring back what they wrote.
    const leavers = authors.filter(author => ['plan-0', 'plan-1'].includes(author.roomId))
    for (const leaver of leavers) leaver.socket.once('close', () => leaver.leave())
    await draining
    const renewed = await serve(signalingServer, { port, data })
    const stayers = authors.filter(author => !author.gone)
    assert.equal(stayers.length, 12)
    await until('everybody back', patienceMs, () => stayers.every(author => author.joined))
    const upTo = stayers.map(author => author.acked)
    await until('promises of the new one', patienceMs, () => stayers.every((author, index) => author.acked > upTo[index] + 20))
    await stop(renewed)
    const again = await serve(oldServer, { port, data })
    await until('everybody back at the old one', patienceMs, () => stayers.every(author => author.joined))
    clearInterval(writing)
    await until('the last promise', patienceMs, () => stayers.every(author => author.acked === author.written.length))
    for (const room of new Set(authors.map(author => author.roomId))) {
      const promised = authors.filter(author => author.roomId === room).flatMap(author => author.promised)
      const { missing, notes } = await found(url, room, promised)
      assert.deepEqual(missing, [], room)
      assert.equal(new Set(notes).size, notes.length, 'nothing is there twice')
    }
    assert.equal(await again.metric('signaling_store_rooms'), 5)
    authors.forEach(author => author.leave())
  })
})

/** The shipped configuration with its second server, and without TLS. */
function startHaproxy (port, oldPort, newPort) {
  const changes = [
    [/bind :443 ssl crt \S+ alpn http\/1.1/, `bind 127.0.0.1:${port}`], [/maxconn 20000/, 'maxconn 1000'],
    [/127.0.0.1:4444/g, `127.0.0.1:${oldPort}`], [/# (server two) 127.0.0.1:4445/, `$1 127.0.0.1:${newPort}`], [/inter 1s/, 'inter 200ms']
  ]
  const config = changes.reduce((text, [from, to]) => {
    assert.match(text, from)
    return text.replace(from, to)
  }, readFileSync(path.join(kit, 'proxy/haproxy.cfg'), 'utf8'))
  const at = path.join(folder(), 'haproxy.cfg')
  writeFileSync(at, config)
  return start('haproxy', ['-W', '-f', at], { env: { PATH: `${process.env.PATH}:/usr/sbin` } })
}
