// A server that dies, drains or stays silent, and clients that come back or stay.
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { Peer, arrives, directory, reads, relay, room, until, write, writeMuch } from './peers.mjs'

const impatient = { reconnect: { initialDelayMs: 100, maxDelayMs: 500 } }

export function restarts () {
  it('loses nothing acknowledged when it is killed, and takes in what was written meanwhile', async t => {
    const [name, dir] = [room(), await directory(t)]
    const first = await relay(t, { dir })
    const peers = [1, 2].map(() => new Peer(t, first.url, impatient))
    const [ana, ben] = await Promise.all(peers.map(peer => peer.document(name)))
    const kept = new Peer(t, first.url)
    const other = await kept.document(room())
    write(other.doc, 'whose author does not return')
    write(ana.doc, 'before')
    await Promise.all([kept.acked(), peers[0].acked(), arrives(ben.doc, 'before')])
    const [roomKept] = kept.socket.sent.slice(-1).map(frame => frame.roomId)
    await kept.close()

    const sockets = peers.map(peer => peer.socket)
    await first.kill()
    await Promise.all(sockets.map(socket => until('the end of the socket', () => socket.closing)))
    write(ana.doc, 'from Ana meanwhile')
    write(ben.doc, 'from Ben meanwhile')
    writeMuch(ben.doc, 400_000)
    assert.ok(!reads(ana.doc, 'from Ben meanwhile'))

    const second = await relay(t, { dir, port: first.port })
    await Promise.all([arrives(ana.doc, 'from Ben meanwhile'), arrives(ben.doc, 'from Ana meanwhile')])
    await until('one document', () => ana.doc.version().compare(ben.doc.version()) === 0)
    assert.deepEqual(ana.doc.toJSON(), ben.doc.toJSON())
    for (const peer of peers) await peer.acked()
    const late = new Peer(t, second.url)
    assert.deepEqual((await late.caughtUp(name)).doc.toJSON(), ana.doc.toJSON())
    assert.deepEqual((await late.caughtUp(roomKept)).doc.toJSON(), other.doc.toJSON())
  })

  it('says 1012 when it drains, and its clients come back by themselves', async t => {
    const [name, dir] = [room(), await directory(t)]
    const first = await relay(t, { dir, env: { SIGNALING_DRAIN_READY_WAIT: '0s', SIGNALING_DRAIN_WINDOW: '500ms' } })
    const peers = [1, 2, 3].map(() => new Peer(t, first.url, impatient))
    const editors = await Promise.all(peers.map(peer => peer.document(name)))
    write(editors[0].doc, 'before')
    await Promise.all(editors.map(({ doc }) => arrives(doc, 'before')))

    const sockets = peers.map(peer => peer.socket)
    const { code } = await first.stop('SIGTERM')
    assert.equal(code, 0)
    await Promise.all(sockets.map(socket => until('the end of the socket', () => socket.closing)))
    assert.deepEqual(sockets.map(socket => socket.closing.code), [1012, 1012, 1012])

    await relay(t, { dir, port: first.port })
    await Promise.all(peers.map(peer => until('its return', () => peer.socket.readyState === WebSocket.OPEN)))
    write(editors[2].doc, 'after')
    await Promise.all(editors.map(({ doc }) => arrives(doc, 'after')))
  })

  it('shows after a drain everybody who came back, though they set nothing anew', async t => {
    const name = room()
    const first = await relay(t, { env: { SIGNALING_DRAIN_READY_WAIT: '0s', SIGNALING_DRAIN_WINDOW: '500ms' } })
    const peers = [1, 2, 3].map(() => new Peer(t, first.url, impatient))
    const stores = await Promise.all(peers.map(peer => peer.presence(name)))
    stores.forEach((store, index) => store.set(`peer ${index}`, { line: index }))
    const all = store => Object.keys(store.getAllStates()).length === 3
    for (const store of stores) await until('all three', () => all(store))

    await first.stop('SIGTERM')
    await relay(t, { port: first.port })
    await Promise.all(peers.map(peer => until('its return', () => peer.socket.readyState === WebSocket.OPEN)))
    for (const store of stores) await until('all three again', () => all(store), 5_000)
  })

  it('answers the pings of the clients, and keeps a silent connection that answers its own', async t => {
    const name = room()
    const { url } = await relay(t, { env: { SIGNALING_SIGNALING_PING_INTERVAL: '1s', SIGNALING_SIGNALING_DEAD_AFTER: '3s' } })
    const [silent, chatty] = [new Peer(t, url, { disablePing: true }), new Peer(t, url, { pingIntervalMs: 50 })]
    const [quiet, talking] = [await silent.document(name), await chatty.document(name)]
    const latencies = []
    chatty.client.onLatency(latency => latencies.push(latency))
    const sockets = [silent.socket, chatty.socket]

    await chatty.client.ping()
    await until('five answers', () => latencies.length >= 5)
    await until('pings of the server for twice as long as silence is borne', () => silent.socket.pings >= 7)
    assert.deepEqual(sockets.map(socket => socket.closing), [undefined, undefined])
    assert.ok(silent.socket === sockets[0] && chatty.socket === sockets[1], 'nobody had to come back')
    write(quiet.doc, 'still there')
    await arrives(talking.doc, 'still there')
  })
}
