// What the published client promises its users about documents, with our server at the other end.
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { LoroDoc } from 'loro-crdt'
import { CrdtType, MessageType, UpdateStatusCode } from 'loro-protocol'
import { Peer, arrives, directory, noise, reads, relay, room, until, write, writeMuch } from './peers.mjs'

/** @param url where a server relays in memory */
export function documents (url) {
  it('brings every edit to the other one, both ways', async t => {
    const name = room()
    const [ana, ben] = await Promise.all([1, 2].map(() => new Peer(t, url()).document(name)))
    write(ana.doc, 'from Ana')
    await arrives(ben.doc, 'from Ana')
    write(ben.doc, 'from Ben')
    await arrives(ana.doc, 'from Ben')
    assert.deepEqual(ana.doc.toJSON(), ben.doc.toJSON())
    assert.deepEqual([...ana.refused, ...ben.refused], [])
  })

  it('gives a document in memory to a newcomer when its author has gone', async t => {
    const name = room()
    const author = new Peer(t, url())
    const { doc } = await author.document(name)
    write(doc, 'for whoever comes')
    await author.acked()
    await author.close()
    const late = await new Peer(t, url()).caughtUp(name)
    assert.deepEqual(late.doc.toJSON(), doc.toJSON())
  })

  it('gives a stored document to a newcomer when its author has gone, and again after a restart', async t => {
    const [name, dir] = [room(), await directory(t)]
    const first = await relay(t, { dir })
    const author = new Peer(t, first.url)
    const { doc } = await author.document(name)
    write(doc, 'for whoever comes')
    await author.acked()
    await author.close()
    const late = new Peer(t, first.url)
    assert.deepEqual((await late.caughtUp(name)).doc.toJSON(), doc.toJSON())
    await late.close()
    await first.kill()
    const second = await relay(t, { dir })
    assert.deepEqual((await new Peer(t, second.url).caughtUp(name)).doc.toJSON(), doc.toJSON())
  })

  it('sends who has a part the difference alone', async t => {
    const name = room()
    const author = new Peer(t, url())
    const { doc } = await author.document(name)
    write(doc, noise(100_000))
    await author.acked()

    const first = new Peer(t, url())
    const { doc: part } = await first.caughtUp(name)
    assert.ok(first.updateBytes(name) >= 100_000, `${first.updateBytes(name)} bytes of 100,000 came at the first time`)
    await first.close()

    write(doc, 'what is new')
    await author.acked()
    const second = new Peer(t, url())
    await second.caughtUp(name, { doc: part })
    assert.deepEqual(part.toJSON(), doc.toJSON())
    const bytes = second.updateBytes(name)
    assert.ok(bytes > 0 && bytes < 300, `${bytes} bytes for a line of 11`)
  })

  it('sends who is up to date nothing', async t => {
    const name = room()
    const author = new Peer(t, url())
    const { doc } = await author.document(name)
    write(doc, 'known to both')
    await author.acked()

    const copy = LoroDoc.fromSnapshot(doc.export({ mode: 'snapshot' }))
    const joiner = new Peer(t, url())
    await joiner.caughtUp(name, { doc: copy })
    // What came before this edit came because of the join.
    write(doc, 'the next edit')
    await arrives(copy, 'the next edit')
    const [next] = author.socket.sent.filter(frame => frame.type === MessageType.DocUpdate).slice(-1)
    assert.deepEqual(joiner.received(MessageType.DocUpdate, name).map(frame => frame.batchId), [next.batchId])
    assert.deepEqual(joiner.received(MessageType.DocUpdateFragmentHeader, name), [])
  })

  it('brings three editors together who each wrote offline', async t => {
    const name = room()
    const base = new Peer(t, url())
    write((await base.document(name)).doc, 'the beginning')
    await base.acked()
    const peers = [1, 2, 3].map(() => new Peer(t, url()))
    const editors = await Promise.all(peers.map(peer => peer.caughtUp(name)))

    peers.forEach(({ client }) => client.close())
    for (const [index, { doc }] of editors.entries()) {
      write(doc, `offline ${index}`)
      doc.getMap('last').set('writer', index)
      doc.getList('list').push(index)
      doc.commit()
      write(doc, `more of ${index}`)
    }
    assert.ok(!reads(editors[0].doc, 'offline 1'))
    await Promise.all(peers.map(({ client }) => client.connect()))

    const versions = () => new Set(editors.map(({ doc }) => JSON.stringify([...doc.version().toJSON()].sort())))
    await until('one version', () => versions().size === 1 && reads(editors[0].doc, 'more of 1') && reads(editors[0].doc, 'more of 2'))
    const [one, two, three] = editors.map(({ doc }) => doc.toJSON())
    assert.deepEqual(one, two)
    assert.deepEqual(two, three)
    assert.deepEqual([...one.list].sort(), [0, 1, 2])
    for (const index of [0, 1, 2]) assert.ok(one.text.includes(`offline ${index}\n`) && one.text.includes(`more of ${index}\n`))
  })

  it('keeps two rooms on one connection apart', async t => {
    const names = [room(), room()]
    const [left, right] = [new Peer(t, url()), new Peer(t, url())]
    const ours = await Promise.all(names.map(name => left.document(name)))
    const theirs = await Promise.all(names.map(name => right.document(name)))
    write(ours[0].doc, 'in the first')
    write(theirs[1].doc, 'in the second')
    await Promise.all([arrives(theirs[0].doc, 'in the first'), arrives(ours[1].doc, 'in the second')])
    for (const [first, second] of [ours, theirs]) {
      assert.equal(first.doc.getText('text').toString(), 'in the first\n')
      assert.equal(second.doc.getText('text').toString(), 'in the second\n')
    }
  })

  it('takes one name for two rooms when it is of two types', async t => {
    const name = room()
    const [left, right, onlyPresent] = [1, 2, 3].map(() => new Peer(t, url()))
    const [mine, theirs] = [await left.document(name), await right.document(name)]
    const [store, others, third] = [await left.presence(name), await right.presence(name), await onlyPresent.presence(name)]
    write(mine.doc, 'a document')
    await arrives(theirs.doc, 'a document')
    store.set('left', { cursor: 3 })
    for (const seen of [others, third]) await until('presence', () => seen.get('left')?.cursor === 3)
    assert.equal(onlyPresent.updateBytes(name, CrdtType.Loro), 0)
    assert.deepEqual(theirs.doc.toJSON(), { text: 'a document\n' })
  })

  it('lets a client that wrote too fast repair itself', async t => {
    const name = room()
    const { url } = await relay(t, { env: { SIGNALING_RELAY_UPDATES_PER_SECOND: '2', SIGNALING_RELAY_UPDATES_BURST: '3' } })
    const [fast, reader] = [new Peer(t, url), new Peer(t, url)]
    const [{ doc, refused }, { doc: copy }] = [await fast.document(name), await reader.document(name)]
    for (let line = 0; line < 20; line++) write(doc, `line ${line}`)
    await until('every line', () => copy.version().compare(doc.version()) === 0)
    assert.deepEqual(copy.toJSON(), doc.toJSON())
    assert.ok(refused.length > 0 && refused.every(status => status === UpdateStatusCode.RateLimited), `refused with ${refused}`)
  })

  it('takes an update of 5 MB up and down in fragments', async t => {
    const name = room()
    const [author, reader] = [new Peer(t, url()), new Peer(t, url())]
    const [{ doc }, { doc: live }] = [await author.document(name), await reader.document(name)]
    writeMuch(doc, 5_000_000)
    await author.acked()
    const [header] = author.socket.sent.filter(frame => frame.type === MessageType.DocUpdateFragmentHeader)
    assert.ok(header.fragmentCount >= 20 && header.totalSizeBytes >= 5_000_000, 'the client sends it in fragments')

    await until('5 MB at the live reader', () => live.getMap('files').get('blob') !== undefined)
    const late = new Peer(t, url())
    const { doc: copy } = await late.caughtUp(name)
    assert.ok(late.received(MessageType.DocUpdateFragmentHeader, name).length > 0, 'a newcomer gets it in fragments')
    const blob = doc.getMap('files').get('blob')
    for (const got of [live, copy]) assert.ok(Buffer.from(got.getMap('files').get('blob')).equals(blob))
    write(copy, 'and back')
    await arrives(doc, 'and back')
  })
}
