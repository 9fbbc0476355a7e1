// Documents that the server cannot read: %ELO, encrypted from end to end by the published adaptor.
import assert from 'node:assert/strict'
import { readFile, readdir } from 'node:fs/promises'
import path from 'node:path'
import { it } from 'node:test'
import { LoroDoc } from 'loro-crdt'
import { CrdtType, EloRecordKind, MessageType, decodeEloContainer, parseEloRecordHeader } from 'loro-protocol'
import { Peer, arrives, directory, noise, relay, room, until, write } from './peers.mjs'

const freshKey = () => crypto.getRandomValues(new Uint8Array(32))

/** @param url where a server relays in memory */
export function sealed (url) {
  it('brings encrypted edits both ways, and to a newcomer when their authors have gone', async t => {
    const [name, key] = [room(), freshKey()]
    const peers = [1, 2].map(() => new Peer(t, url()))
    const [ana, ben] = await Promise.all(peers.map(peer => peer.sealed(name, key)))
    write(ana, 'from Ana')
    await arrives(ben, 'from Ana')
    write(ben, 'from Ben')
    await arrives(ana, 'from Ben')
    await stored(peers[0], ana)
    await stored(peers[1], ben)
    for (const peer of peers) await peer.close()

    const late = await new Peer(t, url()).sealed(name, key)
    await arrives(late, 'from Ben')
    assert.deepEqual(late.toJSON(), ana.toJSON())
  })

  it('sends who has a part of an encrypted document the difference alone', async t => {
    const [name, key] = [room(), freshKey()]
    const author = new Peer(t, url())
    const doc = await author.sealed(name, key)
    const part = new LoroDoc()
    write(doc, noise(50_000))
    await stored(author, doc)
    part.import(doc.export({ mode: 'update' }))
    write(doc, 'what is new')
    await stored(author, doc)

    const joiner = new Peer(t, url())
    await joiner.sealed(name, key, part)
    await arrives(part, 'what is new')
    const bytes = joiner.updateBytes(name, CrdtType.Elo)
    assert.ok(bytes < 1_000, `${bytes} bytes for a line of 11`)
  })

  it('takes a large encrypted update up and down in fragments', async t => {
    const [name, key] = [room(), freshKey()]
    const author = new Peer(t, url())
    const doc = await author.sealed(name, key)
    const line = noise(600_000)
    write(doc, line)
    await until('its fragments', () => author.socket.sent.some(frame => frame.type === MessageType.DocUpdateFragmentHeader))
    await author.acked()
    await author.close()
    await arrives(await new Peer(t, url()).sealed(name, key), line)
  })

  it('joins edits that were made offline under encryption', async t => {
    const [name, key] = [room(), freshKey()]
    const peers = [1, 2].map(() => new Peer(t, url()))
    const docs = await Promise.all(peers.map(peer => peer.sealed(name, key)))
    peers.forEach(({ client }) => client.close())
    write(docs[0], 'offline 0')
    write(docs[1], 'offline 1')
    await Promise.all(peers.map(({ client }) => client.connect()))
    await Promise.all([arrives(docs[0], 'offline 1'), arrives(docs[1], 'offline 0')])
    assert.deepEqual(docs[0].toJSON(), docs[1].toJSON())
  })

  it('stores an encrypted document over a restart, and no word of it can be read on the disk', async t => {
    const [name, openName, dir, key] = [room(), room(), await directory(t), freshKey()]
    const [secret, known] = ['the-merger-is-on-friday', 'the-canteen-has-soup']
    const first = await relay(t, { dir })
    const author = new Peer(t, first.url)
    const [doc, open] = [await author.sealed(name, key), (await author.document(openName)).doc]
    write(doc, secret)
    write(open, known)
    await stored(author, doc)
    await author.close()
    await first.kill()

    const files = await everyFile(dir)
    assert.ok(files.some(bytes => bytes.includes(known)), 'what is not encrypted would be found')
    assert.ok(!files.some(bytes => bytes.includes(secret)), 'the plain text is on the disk')
    assert.ok(!files.some(bytes => bytes.includes(key)), 'the key is on the disk')

    const second = await relay(t, { dir })
    const late = await new Peer(t, second.url).sealed(name, key)
    await arrives(late, secret)
    assert.deepEqual(late.toJSON(), doc.toJSON())
  })
}

/** The author's last edit has been encrypted, sent and acknowledged. */
async function stored (author, doc) {
  const [own, counter] = [doc.peerIdStr, doc.version().toJSON().get(doc.peerIdStr)]
  await until('the encrypted edit', () => author.socket.sent
    .filter(frame => frame.type === MessageType.DocUpdate && frame.crdt === CrdtType.Elo)
    .flatMap(frame => frame.updates.flatMap(decodeEloContainer).map(record => parseEloRecordHeader(record).header))
    .some(({ kind, peerId, end }) => kind === EloRecordKind.DeltaSpan && Buffer.from(peerId).toString() === own && end >= counter))
  await author.acked()
}

async function everyFile (dir) {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true })
  return Promise.all(entries.filter(entry => entry.isFile()).map(entry => readFile(path.join(entry.parentPath ?? entry.path, entry.name))))
}
