// What shares the socket with Loro documents: y-webrtc signaling, and documents of Yjs that are passed on unread.
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { LoroDoc } from 'loro-crdt'
import { Awareness, applyAwarenessUpdate, encodeAwarenessUpdate } from 'y-protocols/awareness'
import * as Y from 'yjs'
import { noise, reads, room, write } from './peers.mjs'
import { CrdtType, MessageType, raw } from './raw.mjs'

/** @param url where a server relays in memory */
export function others (url) {
  it('signals for y-webrtc and relays documents on the very same connection, under one name', async t => {
    const name = room()
    const [one, two] = [await raw(t, url()), await raw(t, url())]
    for (const client of [one, two]) {
      client.signal({ type: 'subscribe', topics: [name] })
      await client.settled()
      assert.equal((await client.join(CrdtType.Loro, name)).type, MessageType.JoinResponseOk)
    }
    const doc = new LoroDoc()
    write(doc, 'an edit')
    one.signal({ type: 'publish', topic: name, data: { type: 'announce', from: 'one' } })
    const batch = one.update(CrdtType.Loro, name, doc.export({ mode: 'update' }))
    one.signal({ type: 'publish', topic: name, data: 'between' })

    const seen = await several(two, 3)
    assert.deepEqual(published(seen), [{ type: 'announce', from: 'one' }, 'between'])
    const [update] = seen.filter(frame => frame.type === MessageType.DocUpdate)
    assert.equal(update.batchId, batch)
    const copy = new LoroDoc()
    copy.importBatch(update.updates)
    assert.ok(reads(copy, 'an edit'))
    // Its own messages come back to a publisher of y-webrtc, its updates do not.
    const own = await several(one, 3)
    assert.deepEqual(published(own), [{ type: 'announce', from: 'one' }, 'between'])
    assert.deepEqual(own.filter(frame => frame.type !== undefined).map(({ type, status }) => [type, status]), [[MessageType.Ack, 0]])
    await Promise.all([one.settled(), two.settled()])
  })

  it('passes on a document of Yjs unread, and gives all of it to a newcomer', async t => {
    const name = room()
    const [author, reader] = [await raw(t, url()), await raw(t, url())]
    for (const client of [author, reader]) assert.equal((await client.join(CrdtType.Yjs, name)).type, MessageType.JoinResponseOk)
    const [doc, live, late] = [new Y.Doc(), new Y.Doc(), new Y.Doc()]
    const updates = []
    doc.on('update', update => updates.push(update))
    const long = noise(300_000)
    doc.getText('text').insert(0, 'the first line\n')
    doc.getText('text').insert(0, 'the second line\n')
    doc.getText('text').insert(0, long)
    const sent = [author.update(CrdtType.Yjs, name, updates[0], updates[1]), author.fragments(CrdtType.Yjs, name, updates[2], 3)]
    const acks = await several(author, 2)
    assert.deepEqual(acks.map(({ refId, status }) => [refId, status]), sent.map(id => [id, 0]))

    apply(live, await several(reader, 5))
    assert.equal(live.getText('text').toString(), doc.getText('text').toString())
    await author.socket.close()
    const newcomer = await raw(t, url())
    assert.equal((await newcomer.join(CrdtType.Yjs, name)).type, MessageType.JoinResponseOk)
    while (late.getText('text').toString() !== doc.getText('text').toString()) apply(late, await whole(newcomer))
  })

  it('passes on the awareness of Yjs unread, and gives the latest to a newcomer', async t => {
    const name = room()
    const [author, reader] = [await raw(t, url()), await raw(t, url())]
    for (const client of [author, reader]) assert.equal((await client.join(CrdtType.YjsAwareness, name)).type, MessageType.JoinResponseOk)
    const [mine, live, late] = [1, 2, 3].map(() => new Awareness(new Y.Doc()))
    t.after(() => [mine, live, late].forEach(awareness => awareness.destroy()))
    for (const line of [1, 2]) {
      mine.setLocalState({ line })
      author.update(CrdtType.YjsAwareness, name, encodeAwarenessUpdate(mine, [mine.clientID]))
    }
    assert.deepEqual((await several(author, 2)).map(({ status }) => status), [0, 0])
    const newcomer = await raw(t, url())
    assert.equal((await newcomer.join(CrdtType.YjsAwareness, name)).type, MessageType.JoinResponseOk)
    for (const [client, awareness] of [[reader, live], [newcomer, late]]) {
      while (awareness.getStates().get(mine.clientID)?.line !== 2) {
        const { updates } = await client.next()
        for (const update of updates) applyAwarenessUpdate(awareness, update, 'the server')
      }
    }
  })
}

async function several (client, count) {
  const frames = []
  while (frames.length < count) frames.push(await client.next())
  return frames
}

/** What the messages of y-webrtc among these carry. */
const published = frames => frames.filter(frame => typeof frame === 'string').map(text => JSON.parse(text).data)

/** The next update, with all its fragments if it comes in some. */
async function whole (client) {
  const frame = await client.next()
  if (frame.type !== MessageType.DocUpdateFragmentHeader) return [frame]
  return [frame, ...await several(client, frame.fragmentCount)]
}

/** Applies updates, and one that comes in fragments. */
function apply (doc, frames) {
  const parts = frames.filter(frame => frame.type === MessageType.DocUpdateFragment).sort((a, b) => a.index - b.index)
  for (const frame of frames) {
    if (frame.type === MessageType.DocUpdate) frame.updates.forEach(update => Y.applyUpdate(doc, update))
  }
  if (parts.length > 0) Y.applyUpdate(doc, Buffer.concat(parts.map(({ fragment }) => fragment)))
}
