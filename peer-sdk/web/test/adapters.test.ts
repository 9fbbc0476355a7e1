import 'fake-indexeddb/auto'
import { readFileSync } from 'node:fs'
import { IDBFactory } from 'fake-indexeddb'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { UrlError, indexedDB, webrtc, websocket } from '../src/index'
import { open, parse, publish, publishedOn } from '../src/adapter/webrtc/envelope'
import { IceSource, parseIce } from '../src/adapter/webrtc/ice'
import { deriveCipher } from '../src/adapter/webrtc/seal'
import { Connection } from '../src/adapter/webrtc/connection'
import { Negotiation } from '../src/adapter/webrtc/negotiation'
import { Pulse } from '../src/adapter/webrtc/pulse'
import { Server } from '../src/adapter/webrtc/signaling'
import { MAX_SDP, fingerprintOf, kindOf, maxMessageSize, parseSignal } from '../src/adapter/webrtc/signal'

beforeEach(() => { globalThis.indexedDB = new IDBFactory() })
afterEach(() => { vi.unstubAllGlobals() })

const door = { open: () => {}, received: () => {}, drained: () => {}, down: () => {}, path: () => {}, quiet: () => {}, resumed: () => {}, signal: () => {} }

describe('IndexedDB', () => {
  it('gives back what it was given, in order, and of this room only', async () => {
    const [ana, ben] = await Promise.all([indexedDB('db').open('a'), indexedDB('db').open('b')])
    await ana.append(Uint8Array.of(1))
    await ben.append(Uint8Array.of(9))
    await ana.append(Uint8Array.of(2))
    ana.close()
    const again = await indexedDB('db').open('a')
    expect(await again.load()).toEqual([Uint8Array.of(1), Uint8Array.of(2)])
    again.close()
    ben.close()
  })

  it('puts a snapshot in the place of what this tab knows, and leaves what another tab has written', async () => {
    const [one, two] = await Promise.all([indexedDB('db').open('a'), indexedDB('db').open('a')])
    await one.append(Uint8Array.of(1))
    await two.append(Uint8Array.of(2))
    await one.compact(Uint8Array.of(10))
    expect(await (await indexedDB('db').open('a')).load()).toEqual([Uint8Array.of(2), Uint8Array.of(10)])
    const three = await indexedDB('db').open('a')
    await three.load()
    await three.compact(Uint8Array.of(12))
    expect(await (await indexedDB('db').open('a')).load()).toEqual([Uint8Array.of(12)])
  })

  it('says so where the browser has none', async () => {
    vi.stubGlobal('indexedDB', undefined)
    await expect(indexedDB('db').open('a')).rejects.toThrow('no IndexedDB')
  })
})

describe('addresses', () => {
  it('are dialled, or refused without showing their token', () => {
    expect(websocket('wss://hub.example/room?x=1', { token: 's&cret' }).name).toBe('wss://hub.example/room')
    expect(() => websocket('http://hub.example/?token=secret')).toThrow(UrlError)
    for (const bad of ['http://hub.example/?token=secret', 'nonsense?token=secret']) {
      try {
        websocket(bad)
      } catch (error) {
        expect(String(error)).not.toContain('secret')
      }
      expect(() => webrtc({ signaling: bad })).toThrow('only ws and wss')
    }
    expect(() => webrtc({ signaling: Array.from({ length: 17 }, (_, n) => `ws://s${n}`) })).toThrow('17 signaling servers, limit is 16')
  })
})

describe('signaling', () => {
  const signal = { type: 'signal', from: 'a', to: 'b', token: 1763888400123.4568, signal: { type: 'renegotiate', renegotiate: true } } as const

  it('is read as it was published, with and without a password, the token to the last bit', async () => {
    const cipher = await deriveCipher('password', 'room')
    for (const said of [signal, { type: 'announce', from: 'a' } as const]) {
      for (const key of [undefined, cipher]) {
        const frame = await publish('room', said, key)
        expect(await open(publishedOn('room', frame), key)).toEqual(said)
        expect(publishedOn('another', frame)).toBeUndefined()
      }
    }
    const sealed = JSON.parse(await publish('room', signal, cipher))
    expect(sealed).toMatchObject({ from: 'a', to: 'b' })
    expect(JSON.stringify(sealed)).not.toContain('renegotiate')
  })

  it('opens what y-webrtc has encrypted', async () => {
    const golden = readFileSync(new URL('../../tests/golden/y_webrtc_sealed.txt', import.meta.url), 'utf8').trim()
    const cipher = await deriveCipher('a password', 'a room')
    expect(await cipher!.unseal(golden)).toMatchObject({ to: 'b', from: 'a', type: 'signal', token: 1763888400123.4568 })
  })

  it('tells passwords that do not fit apart', async () => {
    const [cipher, other] = await Promise.all([deriveCipher('password', 'room'), deriveCipher('other', 'room')])
    const data = publishedOn('room', await publish('room', signal, cipher))
    expect(await open(data, other)).toBe('different')
    expect(await open(data, undefined)).toBe('missing')
    expect(await open(publishedOn('room', await publish('room', signal, undefined)), cipher)).toBe('superfluous')
  })

  it('passes over junk', async () => {
    for (const frame of ['', 'null', '[]', '{', '{"type":"pong"}', '{"type":"publish","topic":7,"data":1}', '['.repeat(100_000), 7, new ArrayBuffer(4)]) {
      expect(publishedOn('room', frame)).toBeUndefined()
    }
    for (const data of [null, [1], {}, { type: 'announce' }, { type: 'announce', from: '' }, { type: 'announce', from: 'x'.repeat(129) }, { type: 'signal', from: 'a', signal: {} }, { type: 'signal', from: 'a', to: 'b', signal: 'offer' }, { type: 'new', from: 'a' }]) {
      expect(parse(data)).toBeUndefined()
    }
    const cipher = (await deriveCipher('password', 'room'))!
    for (const text of ['', 'not base64!', btoa('AES'), 'A'.repeat(300_000)]) expect(await cipher.unseal(text)).toBeUndefined()
    const sealed = await cipher.seal({ a: 1 })
    for (let at = 0; at < sealed.length; at += 3) expect(await cipher.unseal(sealed.slice(0, at))).toBeUndefined()
  })

  it("understands simple-peer's signals and refuses what is none", () => {
    const sdp = 'v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=fingerprint:sha-256 00:01\r\na=max-message-size:1000\r\n'
    expect(parseSignal({ type: 'offer', sdp })).toEqual({ kind: 'offer', sdp })
    expect(kindOf({ type: 'answer', sdp })).toBe('answer')
    expect(kindOf({ candidate: {} })).toBe('other')
    expect(parseSignal({ candidate: { candidate: 'candidate:1 1 udp 1 192.0.2.1 9 typ host', sdpMid: 'evil' } })).toEqual({ kind: 'candidate', candidate: { candidate: 'candidate:1 1 udp 1 192.0.2.1 9 typ host', sdpMLineIndex: 0 } })
    expect(parseSignal({ type: 'renegotiate', renegotiate: true })).toEqual({ kind: 'renegotiate' })
    expect([fingerprintOf(sdp), maxMessageSize(sdp)]).toEqual(['sha-256 00:01', 1000])
    expect([maxMessageSize('a=max-message-size:0\r\n'), maxMessageSize('a=max-message-size:999999999\r\n'), maxMessageSize('')]).toEqual([262_144, 262_144, 65_536])
    for (const junk of [null, 7, [], {}, { type: 'offer' }, { type: 'rollback', sdp }, { type: 'offer', sdp: sdp + 'a=x\r\n'.repeat(MAX_SDP) }, { type: 'offer', sdp: `${sdp}m=video 9 RTP 96\r\n` }, { candidate: 7 }, { candidate: { candidate: '' } }, { candidate: { candidate: 'x'.repeat(513) } }, { renegotiate: 'yes' }]) {
      expect(parseSignal(junk)).toBeUndefined()
    }
  })
})

describe('a signaling server', () => {
  it('is dialled every few seconds for the first minute of a line that is dead, and then seldom', () => {
    vi.useFakeTimers()
    const dialled: number[] = []
    vi.stubGlobal('WebSocket', class {
      constructor () { dialled.push(performance.now()) }
      close (): void {}
    })
    const started = performance.now()
    const server = new Server(new URL('wss://signal.example'), 'room', { up: () => {}, heard: () => {}, changed: () => {} })
    vi.advanceTimersByTime(600_000)
    server.close()
    const at = dialled.map(time => time - started)
    const gaps = at.slice(1).map((time, n) => time - (at[n] ?? 0))
    expect(Math.max(...gaps.filter((_, n) => (at[n + 1] ?? 0) < 60_000))).toBeLessThanOrEqual(6_000)
    expect(at.filter(time => time < 60_000).length).toBeGreaterThan(15)
    expect(at.filter(time => time > 300_000).length).toBeLessThan(60)
    vi.useRealTimers()
  })
})

describe('a pulse', () => {
  it('does not take the answer to what was sent before for one to what was sent after it', async () => {
    vi.useFakeTimers()
    const pair = { id: 'pair', type: 'candidate-pair', bytesReceived: 0, responsesReceived: 1, requestsReceived: 1, lastPacketReceivedTimestamp: 0, localCandidateId: 'l', remoteCandidateId: 'r', currentRoundTripTime: 0.001 }
    const report = new Map<string, object>([['transport', { id: 'transport', type: 'transport', selectedCandidatePairId: 'pair' }], ['pair', pair]])
    const amiss: number[] = []
    const pulse = new Pulse({ getStats: async () => report } as unknown as RTCPeerConnection, door, { amiss: () => amiss.push(performance.now()), back: () => {} })
    const answer = (): void => { Object.assign(pair, { bytesReceived: pair.bytesReceived + 10, lastPacketReceivedTimestamp: performance.timeOrigin + performance.now() }) }
    pulse.start()
    await vi.advanceTimersByTimeAsync(600)
    pulse.busy()
    await vi.advanceTimersByTimeAsync(50)
    answer()
    await vi.advanceTimersByTimeAsync(1000)
    expect(amiss).toEqual([])
    pulse.busy()
    await vi.advanceTimersByTimeAsync(20)
    answer()
    await vi.advanceTimersByTimeAsync(20)
    pulse.busy()
    const lostAt = performance.now()
    await vi.advanceTimersByTimeAsync(2000)
    expect(amiss.map(at => at - lostAt < 1000)).toEqual([true])
    pulse.stop()
    vi.useRealTimers()
  })
})

describe('a negotiation', () => {
  it('says its offer again to who offers too: on a line that was dead only the later one has arrived', async () => {
    const sdp = 'v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=fingerprint:sha-256 00:01\r\n'
    const pc = {
      signalingState: 'stable', localDescription: null as { sdp: string } | null, remoteDescription: { sdp },
      createOffer: async () => ({ type: 'offer', sdp: 'ours' }),
      setLocalDescription: async (description: { sdp: string }) => { Object.assign(pc, { signalingState: 'have-local-offer', localDescription: description }) },
      setRemoteDescription: async () => { throw new Error('the offer of the other side was taken') }
    }
    const said: object[] = []
    const negotiation = new Negotiation(pc as unknown as RTCPeerConnection, true, signal => said.push(signal))
    negotiation.offer(true)
    negotiation.hear({ type: 'offer', sdp })
    await vi.waitFor(() => { expect(said).toEqual([{ type: 'offer', sdp: 'ours' }, { type: 'offer', sdp: 'ours' }]) })
    negotiation.stop()
  })
})

describe('a connection', () => {
  const sdpOf = (certificate: string): string => `v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=fingerprint:sha-256 ${certificate}\r\n`
  const offer = { type: 'offer', sdp: sdpOf('00:01') }
  const answer = { type: 'answer', sdp: sdpOf('00:01') }
  const strangers = { type: 'offer', sdp: sdpOf('00:02') }

  beforeEach(() => { vi.useFakeTimers() })
  afterEach(() => { vi.useRealTimers() })

  /** One whose channel is open. `ended` is why it ended, once it has; `hears` is what signaling brings it. */
  async function connected () {
    const pair = { id: 'pair', type: 'candidate-pair', nominated: true, bytesReceived: 0, responsesReceived: 1, requestsReceived: 1, localCandidateId: 'l', remoteCandidateId: 'r', currentRoundTripTime: 0.001 }
    const channel = { readyState: 'open', bufferedAmount: 0, send: () => {}, close: () => {} }
    const pc = {
      signalingState: 'stable', connectionState: 'connected', remoteDescription: answer, localDescription: offer,
      onconnectionstatechange: () => {},
      createDataChannel: () => channel,
      createOffer: async () => offer,
      setLocalDescription: async () => { pc.signalingState = 'have-local-offer' },
      setRemoteDescription: async ({ type }: { type: string }) => { pc.signalingState = type === 'answer' ? 'stable' : 'have-remote-offer' },
      setConfiguration: () => {},
      getStats: async () => new Map([['pair', pair]]),
      close: () => {}
    }
    const ended: unknown[] = []
    const amiss = vi.fn()
    const told = { ...door, down: (_end: string, why?: string) => { ended.push(why) } }
    const connection = new Connection('loro/1', pc as unknown as RTCPeerConnection, true, told, async () => ({}), amiss)
    pc.signalingState = 'stable'
    const hears = (signal: object): void => {
      connection.signalled(signal)
      connection.hear(signal)
    }
    await vi.advanceTimersByTimeAsync(600)
    pc.signalingState = 'stable'
    return { connection, pc, pair, ended, amiss, hears }
  }

  it('is not ended by who speaks in the name of the other side, however often', async () => {
    const { ended, hears } = await connected()
    for (let n = 0; n < 3; n++) hears(strangers)
    await vi.advanceTimersByTimeAsync(3000)
    hears({ ...strangers, type: 'answer' })
    expect(ended).toEqual([])
  })

  it('gives way to a new one while it is interrupted', async () => {
    const { pc, ended, hears } = await connected()
    pc.connectionState = 'disconnected'
    pc.onconnectionstatechange()
    hears(strangers)
    expect(ended).toEqual(['the other side has begun anew'])
  })

  it('gives way to a new one after the other side looked for another way, but not for long', async () => {
    const one = await connected()
    one.hears(offer)
    one.hears(strangers)
    expect(one.ended).toEqual(['the other side has begun anew'])
    const other = await connected()
    other.hears(offer)
    await vi.advanceTimersByTimeAsync(6000)
    other.hears(strangers)
    expect(other.ended).toEqual([])
  })

  it.each([[true, []], [false, ['no other way was found']]])('that looks for another way ends when that carries nothing (it does: %s)', async (carries, ends) => {
    const { connection, pair, ended, amiss, hears } = await connected()
    connection.send(Uint8Array.of(1))
    await vi.advanceTimersByTimeAsync(800)
    expect(amiss).toHaveBeenCalledOnce()
    connection.wake()
    await vi.advanceTimersByTimeAsync(50)
    hears(answer)
    if (carries) pair.bytesReceived += 10
    await vi.advanceTimersByTimeAsync(1000)
    expect(ended).toEqual(ends)
    connection.close()
  })
})

describe('data channels', () => {
  class FakeConnection extends EventTarget {
    static made: FakeConnection[] = []
    closed = false
    constructor (public configuration?: RTCConfiguration) {
      super()
      FakeConnection.made.push(this)
    }

    setConfiguration (configuration: RTCConfiguration): void { this.configuration = configuration }

    createDataChannel (): object { return {} }
    async createOffer (): Promise<object> { return await new Promise(() => {}) }
    close (): void { this.closed = true }
  }
  const ear = { up: () => {}, announced: () => {}, signalled: () => {}, password: () => {}, changed: () => {}, iceFailed: () => {} }
  const turn = { urls: 'turn:a', username: 'u', credential: 'c' }

  beforeEach(() => {
    FakeConnection.made = []
    vi.useFakeTimers()
    vi.stubGlobal('RTCPeerConnection', FakeConnection)
    vi.stubGlobal('WebSocket', class { close (): void {} })
  })
  afterEach(() => { vi.useRealTimers() })

  it('have their first connection made before anybody is met, which asks for addresses at once', async () => {
    const mesh = webrtc({ signaling: 'wss://signal.example', iceServers: [turn] }).start('room', 'me', ear)
    const known = { iceServers: [turn], iceTransportPolicy: 'all', iceCandidatePoolSize: 1 }
    expect(FakeConnection.made.map(({ configuration }) => configuration)).toEqual([known])
    mesh.connect('a', true, door)
    mesh.connect('b', true, door)
    await vi.advanceTimersByTimeAsync(20_000)
    expect(FakeConnection.made.map(({ closed, configuration }) => [closed, configuration])).toEqual([[false, known], [false, known]])
    mesh.close()
  })

  it('have their first connection told of servers as soon as these are known, unless it is gone by then', async () => {
    vi.stubGlobal('fetch', async () => ({ status: 200, text: async () => '{"iceServers":[{"urls":"stun:b"}],"ttl":3600}' }))
    const options = { signaling: 'wss://signal.example', iceFrom: 'https://signal.example/ice', relayOnly: true }
    const mesh = webrtc(options).start('room', 'me', ear)
    const other = webrtc(options).start('room', 'me', ear)
    other.close()
    await vi.advanceTimersByTimeAsync(0)
    const asked = FakeConnection.made.map(({ configuration }) => configuration?.iceServers)
    expect(asked).toEqual([[{ urls: ['stun:b'] }], []])
    expect(FakeConnection.made[0]?.configuration).toMatchObject({ iceTransportPolicy: 'relay', iceCandidatePoolSize: 1 })
    mesh.close()
  })

  it('are looked for anew when the first of several signaling servers is there, and only announced at the others', async () => {
    const said: string[] = []
    const sockets: Array<{ onopen?: () => void }> = []
    vi.stubGlobal('WebSocket', class {
      onopen?: () => void
      bufferedAmount = 0
      constructor (private readonly url: URL) { sockets.push(this) }
      send (frame: string): void { if (frame.includes('announce')) said.push(this.url.host) }
      close (): void {}
    })
    const up = vi.fn()
    const mesh = webrtc({ signaling: ['wss://one.example', 'wss://two.example'] }).start('room', 'me', { ...ear, up })
    await vi.advanceTimersByTimeAsync(0)
    sockets[0]?.onopen?.()
    await vi.advanceTimersByTimeAsync(0)
    expect([up.mock.calls.length, said]).toEqual([1, []])
    sockets[1]?.onopen?.()
    await vi.advanceTimersByTimeAsync(0)
    expect([up.mock.calls.length, said]).toEqual([1, ['two.example']])
    mesh.close()
  })

  it('have none that is open where nobody is met', async () => {
    const mesh = webrtc({ signaling: 'wss://signal.example', iceServers: [turn] }).start('room', 'me', ear)
    await vi.advanceTimersByTimeAsync(9_000)
    expect(FakeConnection.made.map(({ closed }) => closed)).toEqual([false])
    await vi.advanceTimersByTimeAsync(1_000)
    expect(FakeConnection.made.map(({ closed }) => closed)).toEqual([true])
    mesh.connect('a', true, door)
    await vi.advanceTimersByTimeAsync(0)
    expect(FakeConnection.made.map(({ closed }) => closed)).toEqual([true, false])
    mesh.close()
  })
})

describe('servers for ICE', () => {
  it('are read from an answer, or the answer is refused', () => {
    expect(parseIce('{"iceServers":[{"urls":"stun:a"},{"urls":["turn:b"],"username":"u","credential":"c"}],"ttl":60}')).toEqual({ servers: [{ urls: ['stun:a'] }, { urls: ['turn:b'], username: 'u', credential: 'c' }], ttl: 60 })
    const many = JSON.stringify({ iceServers: Array.from({ length: 17 }, () => ({ urls: 'stun:a' })) })
    for (const bad of ['', 'null', '[]', '{}', '{"iceServers":[7]}', '{"iceServers":[{"urls":[7]}]}', `{"iceServers":[{"urls":"${'x'.repeat(600)}"}]}`, many, 'x'.repeat(70_000)]) {
      expect(() => parseIce(bad)).toThrow()
    }
  })

  it('are asked for once while they are fresh, and those of before serve while there are no new ones', async () => {
    let answers = 0
    const body = '{"iceServers":[{"urls":"stun:a"}],"ttl":3600}'
    vi.stubGlobal('fetch', async () => { answers++; return { status: 200, text: async () => body } })
    const source = new IceSource('https://signal.example/ice')
    expect(await Promise.all([source.servers(), source.servers()])).toEqual([[{ urls: ['stun:a'] }], [{ urls: ['stun:a'] }]])
    expect(answers).toBe(1)
    vi.spyOn(performance, 'now').mockReturnValue(performance.now() + 1_900_000)
    vi.stubGlobal('fetch', async () => ({ status: 429 }))
    expect(await source.servers()).toEqual([{ urls: ['stun:a'] }])
    vi.mocked(performance.now).mockReturnValue(performance.now() + 4_000_000)
    await expect(source.servers()).rejects.toThrow('status 429')
    vi.restoreAllMocks()
  })
})
