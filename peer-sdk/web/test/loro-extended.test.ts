import type { ChannelMsg } from '@loro-extended/repo'
import { LoroDoc, type PeerID } from 'loro-crdt'
import { describe, expect, it } from 'vitest'
import { readFrame, readTransport, transport, writeFrame } from '../src/loro-extended/wire'

const doc = new LoroDoc()
doc.setPeerId('18446744073709551614')
doc.getText('t').insert(0, 'hello')
doc.commit()
const version = doc.oplogVersion()
const data = doc.export({ mode: 'update' })
const peerId = '123' as PeerID
const ephemeral = [{ peerId, data: Uint8Array.of(1, 2), namespace: 'presence' }]

const messages: ChannelMsg[] = [
  { type: 'channel/establish-request', identity: { peerId, name: 'Ana', type: 'user' } },
  { type: 'channel/establish-response', identity: { peerId, type: 'bot' } },
  { type: 'channel/sync-request', docId: 'd', requesterDocVersion: version, bidirectional: true, ephemeral },
  { type: 'channel/sync-request', docId: 'd', requesterDocVersion: version, bidirectional: false },
  { type: 'channel/sync-response', docId: 'd', transmission: { type: 'up-to-date', version } },
  { type: 'channel/sync-response', docId: 'd', transmission: { type: 'snapshot', data, version }, ephemeral },
  { type: 'channel/sync-response', docId: 'd', transmission: { type: 'unavailable' } },
  { type: 'channel/update', docId: 'd', transmission: { type: 'update', data, version } },
  { type: 'channel/directory-request', docIds: ['a'] },
  { type: 'channel/directory-request' },
  { type: 'channel/directory-response', docIds: ['a', 'b'] },
  { type: 'channel/new-doc', docIds: [] },
  { type: 'channel/delete-request', docId: 'd' },
  { type: 'channel/delete-response', docId: 'd', status: 'deleted' },
  { type: 'channel/ephemeral', docId: 'd', hopsRemaining: 1, stores: ephemeral },
  { type: 'channel/batch', messages: [{ type: 'channel/new-doc', docIds: ['x'] }, { type: 'channel/delete-request', docId: 'y' }] }
]

/** Versions are objects of Loro's; what they say is what counts. */
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value, (_, inner) =>
  inner !== null && typeof inner === 'object' && 'toJSON' in inner && 'encode' in inner ? [...inner.toJSON()] : inner instanceof Uint8Array ? [...inner] : inner))

describe("loro-extended's frames", () => {
  it('say what they were made of, every kind of message', () => {
    for (const message of messages) {
      const read = readFrame(writeFrame(message))
      expect(read?.map(plain)).toEqual([plain(message)])
    }
  })

  it('are the bytes that its protocol describes', () => {
    expect(Buffer.from(writeFrame({ type: 'channel/delete-request', docId: 'd' })).toString('hex')).toBe('02000000000b' + 'a2' + '6174' + '1830' + '63646f63' + '6164')
    expect(readFrame(Uint8Array.from(Buffer.from('02010000000d' + '81a2' + '6174' + '1830' + '63646f63' + '626464', 'hex')))).toEqual([{ type: 'channel/delete-request', docId: 'dd' }])
  })

  it('are cut into parts that come together again', () => {
    const frame = writeFrame({ type: 'channel/update', docId: 'd', transmission: { type: 'snapshot', data: new Uint8Array(100_000), version } })
    const [header, ...parts] = transport(frame, 30_000).map(message => readTransport(message))
    expect(header).toMatchObject({ kind: 'header', fragments: 4, size: frame.length })
    expect(Buffer.concat(parts.map(part => part?.kind === 'fragment' ? part.part : new Uint8Array()))).toEqual(Buffer.from(frame))
    expect(readTransport(transport(frame, 200_000)[0]!)).toMatchObject({ kind: 'whole' })
  })

  it('of strangers are refused or make sense, whatever is in them', () => {
    for (const message of messages) {
      const frame = writeFrame(message)
      for (let at = 0; at < frame.length; at++) {
        expect(readFrame(frame.subarray(0, at))).toBeUndefined()
        const damaged = frame.slice()
        damaged[at]! ^= 0x55
        for (const read of readFrame(damaged) ?? []) expect(read.type).toMatch(/^channel\//)
      }
    }
    for (const bytes of ['', '02', '0200ffffffff', '0200000000019f', '02000000000a9bffffffffffffffff00']) {
      expect(readFrame(Uint8Array.from(Buffer.from(bytes, 'hex'))) ?? []).toEqual([])
    }
    const deep = Buffer.alloc(100_000, 0x81)
    expect(readFrame(Buffer.concat([Buffer.from([2, 0, 0, 1, 0x86, 0xa0]), deep])) ?? []).toEqual([])
    for (const bytes of [[], [1], [1, 2, 3], [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [3]]) expect(readTransport(Uint8Array.from(bytes))).toBeUndefined()
  })
})
