// Who is there: %EPH, which ends with its connection, and %EPS, which is stored.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { it } from 'node:test'
import { LoroEphemeralAdaptor } from 'loro-adaptors/loro'
import { within } from '../servers.mjs'
import { Peer, answerMs, directory, relay, room, until } from './peers.mjs'

/** How a client comes back that is not to keep a test waiting. */
const quickly = { reconnect: { initialDelayMs: 100 } }
const otherClock = path.join(import.meta.dirname, 'other-clock.mjs')

/** @param url where a server relays in memory */
export function presence (url) {
  it('tells a newcomer at once who is there', async t => {
    const name = room()
    const [ana, ben] = await Promise.all([1, 2].map(() => new Peer(t, url()).presence(name)))
    ana.set('ana', { line: 1 })
    ben.set('ben', { line: 2 })
    await until('each other', () => ana.get('ben') && ben.get('ana'))
    ana.set('ana', { line: 7 })
    await until('the newer line', () => ben.get('ana').line === 7)

    const late = await new Peer(t, url()).presence(name)
    await until('both', () => late.get('ana') && late.get('ben'))
    assert.deepEqual(late.getAllStates(), { ana: { line: 7 }, ben: { line: 2 } })
  })

  it('takes away within a second what a client announced whose socket was torn', async t => {
    const name = room()
    const [leaver, stayer] = [new Peer(t, url()), new Peer(t, url())]
    const [gone, seen] = [await leaver.presence(name), await stayer.presence(name)]
    gone.set('gone', { line: 1 })
    gone.set('gone too', { line: 1 })
    seen.set('stays', { line: 2 })
    await until('presence', () => seen.get('gone') && seen.get('gone too') && gone.get('stays'))
    leaver.vanish()
    await until('its leaving', () => !seen.get('gone') && !seen.get('gone too'), 1_000)
    assert.deepEqual(seen.getAllStates(), { stays: { line: 2 } })

    const late = await new Peer(t, url()).presence(name)
    await until('who is left', () => late.get('stays'))
    assert.deepEqual(late.getAllStates(), { stays: { line: 2 } })
  })

  it('shows again who was torn away and came back, each time, though it sets nothing anew', async t => {
    const name = room()
    const [flapping, stayer] = [new Peer(t, url(), quickly), new Peer(t, url())]
    const [back, seen] = [await flapping.presence(name), await stayer.presence(name)]
    seen.set('stays', { line: 2 })
    back.set('back', { line: 1 })
    await until('each other', () => seen.get('back') && back.get('stays'))
    const both = { back: { line: 1 }, stays: { line: 2 } }
    for (let times = 0; times < 3; times++) {
      flapping.socket.terminate()
      await until('its leaving', () => !seen.get('back'), 1_000)
      await until('its return', () => seen.get('back'))
      await until('what it knows itself', () => back.get('back'))
      const late = await new Peer(t, url()).presence(name)
      await until('what a newcomer sees', () => late.get('back') && late.get('stays'))
      for (const store of [back, seen, late]) assert.deepEqual(store.getAllStates(), both)
    }
    back.set('back', { line: 9 })
    await until('what it sets then', () => seen.get('back').line === 9)
    flapping.vanish()
    await until('its leaving', () => !seen.get('back'), 1_000)
  })

  it('shows again who comes back with the store that it had, on another client', async t => {
    const name = room()
    const [leaver, stayer] = [new Peer(t, url()), new Peer(t, url())]
    const [store, seen] = [await leaver.presence(name), await stayer.presence(name)]
    store.set('back', { line: 1 })
    await until('presence', () => seen.get('back'))
    leaver.vanish()
    await until('its leaving', () => !seen.get('back'), 1_000)
    await new Peer(t, url()).join(name, new LoroEphemeralAdaptor(store))
    await until('its return', () => seen.get('back') && store.get('back'))
  })

  it('shows everybody again when the whole room was torn away and came back', async t => {
    const name = room()
    const peers = [1, 2, 3].map(() => new Peer(t, url(), quickly))
    const stores = await Promise.all(peers.map(peer => peer.presence(name)))
    const all = () => stores.every(store => [0, 1, 2].every(nth => store.get(`peer ${nth}`)))
    stores.forEach((store, nth) => store.set(`peer ${nth}`, { line: nth }))
    await until('each other', all)
    const torn = peers.map(peer => peer.socket)
    torn.forEach(socket => socket.terminate())
    await until('their return', () => peers.every((peer, nth) => peer.socket !== torn[nth] && peer.socket.readyState === WebSocket.OPEN))
    await until('each other again', all)
    // Who has set something since leaves alone, and takes nobody along.
    stores.forEach((store, nth) => store.set(`peer ${nth}`, { line: 10 + nth }))
    await until('what they set', () => stores.every(store => [0, 1, 2].every(nth => store.get(`peer ${nth}`)?.line === 10 + nth)))
    peers[0].vanish()
    await until('its leaving', () => !stores[1].get('peer 0') && !stores[2].get('peer 0'), 1_000)
    for (const store of stores.slice(1)) assert.deepEqual(Object.keys(store.getAllStates()).sort(), ['peer 1', 'peer 2'])
  })

  it('bears with a network that flaps, if it is told to, and with nothing longer', async t => {
    const name = room()
    const { url } = await relay(t, { env: { SIGNALING_RELAY_PRESENCE_GRACE: '2s' } })
    const [flapping, stayer] = [new Peer(t, url, quickly), new Peer(t, url)]
    const [back, seen] = [await flapping.presence(name), await stayer.presence(name)]
    back.set('back', { line: 1 })
    await until('presence', () => seen.get('back'))
    const removed = []
    seen.subscribe(event => removed.push(...event.removed))

    const torn = flapping.socket
    torn.terminate()
    await until('its return', () => flapping.socket !== torn && flapping.socket.readyState === WebSocket.OPEN)
    const late = await new Peer(t, url).presence(name)
    await until('a newcomer who sees it', () => late.get('back'))
    await flapping.acked()
    const witnessed = performance.now()
    await until('the end of the grace', () => performance.now() - witnessed > 2_000)
    assert.deepEqual(removed, [])
    assert.deepEqual(seen.getAllStates(), { back: { line: 1 } })

    flapping.vanish()
    await until('its leaving', () => !seen.get('back') && !late.get('back'), 3_000)
    assert.deepEqual(removed, ['back'])
  })

  for (const [clock, shift] of [['20 s slow', -20_000], ['20 s fast', 20_000]]) {
    it(`shows a client whose clock is ${clock} to those who are there and to those who come, until it goes`, async t => {
      const name = room()
      const live = await new Peer(t, url()).presence(name)
      const skewed = await announced(t, url(), name, shift)
      await until('who has another clock', () => live.get('skewed'))
      assert.deepEqual(live.getAllStates(), { skewed: { line: 1 } })
      const late = await new Peer(t, url()).presence(name)
      await until('who has another clock', () => late.get('skewed'))

      skewed.kill('SIGKILL')
      await once(skewed, 'exit')
      await until('its leaving', () => !live.get('skewed') && !late.get('skewed'), 1_000)
      // Who comes after it has gone is told what is there by then, before anything that follows.
      const [last, witness] = [await new Peer(t, url()).presence(name), live]
      witness.set('witness', { line: 3 })
      await until('the witness', () => last.get('witness'))
      assert.deepEqual(last.getAllStates(), { witness: { line: 3 } })
    })
  }

  it('keeps stored presence over a restart', async t => {
    const [name, dir] = [room(), await directory(t)]
    const first = await relay(t, { dir })
    const author = new Peer(t, first.url)
    const store = await author.storedPresence(name)
    store.set('profile', { colour: 'teal' })
    // Of two values of one millisecond receivers keep the first; by the time of the ack it is another one.
    await author.acked()
    store.set('profile', { colour: 'plum' })
    store.set('read', 12)
    await author.acked()
    const present = await new Peer(t, first.url).storedPresence(name)
    await until('stored presence', () => present.get('read'))
    await author.close()
    await first.kill()

    const second = await relay(t, { dir })
    const late = await new Peer(t, second.url).storedPresence(name)
    await until('stored presence', () => late.get('read'))
    assert.deepEqual(late.getAllStates(), { profile: { colour: 'plum' }, read: 12 })
  })
}

/** A client in a process with a clock of its own, once it has announced itself. */
async function announced (t, url, name, shift) {
  const child = spawn(process.execPath, [otherClock, url, name, String(shift)], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  await within(answerMs, 'its announcement', once(createInterface({ input: child.stdout }), 'line'))
  return child
}
