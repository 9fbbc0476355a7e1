// Who may join, read and write: tokens in the URL or in the request to join, and a relay that is switched off.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { LoroDoc } from 'loro-crdt'
import { JoinErrorCode, UpdateStatusCode } from 'loro-protocol'
import { ourBinary, ours, within } from '../servers.mjs'
import { Peer, arrives, directory, noise, reads, relay, room, until, write, writeMuch } from './peers.mjs'
import { CrdtType, MessageType, raw, refusal } from './raw.mjs'

const [secret, wrong] = ['a-shared-token-of-the-tests', 'not-the-token']
const bytes = text => new TextEncoder().encode(text)
const withToken = (url, token) => `${url}/?token=${token}`

export function access () {
  describe('with shared tokens', { concurrency: true }, sharedTokens)
  describe('with signed tokens', { concurrency: true }, signedTokens)
  describe('with the relay off', { concurrency: true }, relayOff)
}

function sharedTokens () {
  let server
  before(async () => { server = await relay(undefined, { env: tokens() }) })
  after(() => server.kill())

  it('takes the token from the request to join, on a socket that brought none', async t => {
    const name = room()
    const [ana, ben] = await Promise.all([1, 2].map(() => new Peer(t, server.url).document(name, { auth: bytes(secret) })))
    write(ana.doc, 'with a token')
    await arrives(ben.doc, 'with a token')
  })

  it('takes the token from the URL, and then none is needed to join', async t => {
    const name = room()
    const url = withToken(server.url, secret)
    const [ana, ben] = await Promise.all([1, 2].map(() => new Peer(t, url).document(name)))
    write(ana.doc, 'with a token')
    await arrives(ben.doc, 'with a token')
  })

  it('leaves the topics of a tokenless socket mute until it has joined a room with a token', async t => {
    const topic = room()
    const [member, late] = [await raw(t, withToken(server.url, secret)), await raw(t, server.url)]
    member.signal({ type: 'subscribe', topics: [topic] })
    late.signal({ type: 'subscribe', topics: [topic] })
    await late.settled()
    await member.settled()
    late.signal({ type: 'publish', topic, data: 'from a stranger' })
    await late.settled()
    await member.settled()
    member.signal({ type: 'publish', topic, data: 'for members' })
    assert.equal(JSON.parse(await member.next()).clients, 1)
    await late.settled()

    assert.equal((await late.join(CrdtType.Loro, room(), { token: secret })).type, MessageType.JoinResponseOk)
    late.signal({ type: 'subscribe', topics: [topic] })
    await late.settled()
    member.signal({ type: 'publish', topic, data: 'for members' })
    assert.equal(JSON.parse(await late.next()).data, 'for members')
    assert.equal(JSON.parse(await member.next()).clients, 2)
    late.signal({ type: 'publish', topic, data: 'from a member' })
    assert.equal(JSON.parse(await member.next()).data, 'from a member')
  })

  it('answers a wrong token with auth_failed, and the socket stays', async t => {
    const name = room()
    const peer = new Peer(t, server.url)
    const { socket } = peer
    for (const auth of [bytes(wrong), new Uint8Array()]) {
      await assert.rejects(peer.document(name, { auth }), /Join failed: 2/)
    }
    const [first, second] = peer.received(MessageType.JoinError, name)
    assert.deepEqual([first.code, second.code], [JoinErrorCode.AuthFailed, JoinErrorCode.AuthFailed])
    const { doc } = await peer.document(name, { auth: bytes(secret) })
    write(doc, 'at last')
    await peer.acked()
    assert.ok(peer.socket === socket && !socket.closing, 'the socket stays')
  })

  it('does not upgrade a socket with a wrong token in its URL', async () => {
    assert.equal(await refusal(withToken(server.url, wrong)), 401)
  })

  it('takes no update of who has not joined', async t => {
    const name = room()
    const stranger = await raw(t, server.url)
    const batch = stranger.update(CrdtType.Loro, name, new LoroDoc().export({ mode: 'snapshot' }))
    const ack = await stranger.next()
    assert.deepEqual([ack.type, ack.refId, ack.status], [MessageType.Ack, batch, UpdateStatusCode.PermissionDenied])
    await stranger.settled()
  })

  it('closes with 4401 after 30 s who has joined nothing, and keeps who has', async t => {
    const name = room()
    const [idler, failing, member] = [await raw(t, server.url), await raw(t, server.url), await raw(t, server.url)]
    const opened = performance.now()
    await member.join(CrdtType.Loro, name, { token: secret })
    assert.equal((await failing.join(CrdtType.Loro, name, { token: wrong })).type, MessageType.JoinError)
    for (const client of [idler, failing]) {
      const { code } = await within(40_000, 'the end of a tokenless socket', client.closed)
      assert.equal(code, 4401)
    }
    const seconds = (performance.now() - opened) / 1_000
    assert.ok(seconds > 28 && seconds < 35, `closed after ${seconds} s`)
    await member.settled()
  })
}

function signedTokens () {
  let server, key
  const undo = []
  before(async () => {
    key = path.join(await directory({ after: step => undo.push(step) }), 'key')
    await writeFile(key, `${noise(64)}\n`)
    server = await relay(undefined, { env: { SIGNALING_ACCESS_MODE: 'signed', SIGNALING_ACCESS_KEYS_FILE: key } })
  })
  after(() => Promise.all([server.kill(), ...undo.map(step => step())]))
  const token = (rooms, role) => signed(key, rooms, role)

  it('refuses what a read-only token writes, in one frame and in fragments, and shows it to nobody', async t => {
    const name = room()
    const [read, writing] = [await token(name, 'read'), await token(name, 'write')]
    const [readers, writer] = [[1, 2].map(() => new Peer(t, server.url)), new Peer(t, server.url)]
    const [author, watcher] = await Promise.all(readers.map(peer => peer.document(name, { auth: bytes(read) })))
    const { doc } = await writer.document(name, { auth: bytes(writing) })
    assert.deepEqual(readers.map(peer => peer.received(MessageType.JoinResponseOk, name)[0].permission), ['read', 'read'])
    assert.equal(writer.received(MessageType.JoinResponseOk, name)[0].permission, 'write')

    write(author.doc, 'not allowed')
    await until('the refusal', () => author.refused.length === 1)
    writeMuch(author.doc, 600_000)
    assert.ok(readers[0].socket.sent.some(frame => frame.type === MessageType.DocUpdateFragmentHeader), 'the client sends it in fragments')
    await until('the refusal of fragments', () => author.refused.length >= 2)
    assert.deepEqual(author.refused, [UpdateStatusCode.PermissionDenied, UpdateStatusCode.PermissionDenied])

    // Who sees this has seen what came before.
    write(doc, 'allowed')
    await Promise.all([arrives(watcher.doc, 'allowed'), arrives(author.doc, 'allowed')])
    assert.equal(watcher.doc.getText('text').toString(), 'allowed\n')
    assert.equal(doc.getText('text').toString(), 'allowed\n')
    const late = await new Peer(t, server.url).caughtUp(name, { auth: bytes(read) })
    assert.equal(late.doc.getText('text').toString(), 'allowed\n')
  })

  it('takes what was refused once its author joins again with a token that may write', async t => {
    const name = room()
    const peer = new Peer(t, server.url)
    const { doc, room: joined, refused } = await peer.document(name, { auth: bytes(await token(name, 'read')) })
    const watcher = await new Peer(t, server.url).document(name, { auth: bytes(await token(name, 'read')) })
    write(doc, 'too early')
    await until('the refusal', () => refused.length === 1)
    assert.ok(!reads(watcher.doc, 'too early'))

    const { socket } = peer
    await joined.destroy()
    const again = await peer.document(name, { doc, auth: bytes(await token(name, 'write')) })
    assert.equal(peer.received(MessageType.JoinResponseOk, name).at(-1).permission, 'write')
    await arrives(watcher.doc, 'too early')
    write(doc, 'in time')
    await arrives(watcher.doc, 'in time')
    assert.deepEqual(again.refused, [])
    assert.ok(peer.socket === socket && !socket.closing, 'the socket stays')
  })

  it('changes what a member may do when it joins again without leaving', async t => {
    const name = room()
    const member = await raw(t, server.url)
    const doc = new LoroDoc()
    write(doc, 'an edit')
    for (const [role, status] of [['read', UpdateStatusCode.PermissionDenied], ['write', UpdateStatusCode.Ok], ['read', UpdateStatusCode.PermissionDenied]]) {
      const answer = await member.join(CrdtType.Loro, name, { token: await token(name, role), version: doc.version().encode() })
      assert.deepEqual([answer.type, answer.permission], [MessageType.JoinResponseOk, role])
      const batch = member.update(CrdtType.Loro, name, doc.export({ mode: 'update' }))
      const ack = await member.next()
      assert.deepEqual([ack.type, ack.refId, ack.status], [MessageType.Ack, batch, status])
    }
  })

  it('opens the rooms that a token names, and no others', async t => {
    const [named, other] = [room(), room()]
    const peer = new Peer(t, withToken(server.url, await token(named, 'write')))
    await peer.document(named)
    await assert.rejects(peer.document(other), /Join failed: 2/)
    await assert.rejects(peer.document(other, { auth: bytes(await token(named, 'write')) }), /Join failed: 2/)
    await peer.document(other, { auth: bytes(await token(other, 'write')) })
  })

  it('keeps what the token in the URL opened when another room is joined with a token of its own', async t => {
    const [topic, other] = [room(), room()]
    const url = withToken(server.url, await token(topic, 'write'))
    const [one, two] = [await raw(t, url), await raw(t, url)]
    for (const client of [one, two]) {
      client.signal({ type: 'subscribe', topics: [topic] })
      await client.settled()
    }
    const answer = await one.join(CrdtType.Loro, other, { token: await token(other, 'read') })
    assert.equal(answer.type, MessageType.JoinResponseOk)
    one.signal({ type: 'publish', topic, data: 'still allowed' })
    assert.equal(JSON.parse(await two.next()).data, 'still allowed')
  })
}

function relayOff () {
  it('answers a tokenless upgrade with 401', async t => {
    const server = await ours.start({ env: tokens() })
    t.after(() => server.kill())
    assert.equal(await refusal(server.url), 401)
    assert.equal(await refusal(withToken(server.url, wrong)), 401)
  })

  it('says so to who joins, and goes on signaling', async t => {
    const server = await ours.start()
    t.after(() => server.kill())
    await assert.rejects(new Peer(t, server.url).document(room()), /Join failed: 127 - .*relay/)
    const [topic, client] = [room(), await raw(t, server.url)]
    const answer = await client.join(CrdtType.LoroEphemeralStore, topic)
    assert.deepEqual([answer.type, answer.code, answer.appCode], [MessageType.JoinError, JoinErrorCode.AppError, 'relay_off'])
    client.signal({ type: 'subscribe', topics: [topic] })
    client.signal({ type: 'publish', topic, data: 'y-webrtc' })
    assert.equal(JSON.parse(await client.next()).data, 'y-webrtc')
  })
}

function tokens () {
  return { SIGNALING_ACCESS_MODE: 'tokens', SIGNALING_ACCESS_TOKENS: secret }
}

/** A token made as an operator makes one. */
async function signed (key, rooms, role) {
  const { stdout } = await promisify(execFile)(ourBinary, ['token', '--key', key, '--room', rooms, '--role', role])
  return stdout.trim()
}
