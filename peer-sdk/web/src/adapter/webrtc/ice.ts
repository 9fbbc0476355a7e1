// Where to ask for STUN and TURN servers. Credentials of TURN servers expire, so they are asked for before each connection
// and each ICE restart, and an answer is kept for half of its time. It stands alone when it is loaded: only who asks needs it.

/** How long an answer may take, and how long it is kept at least and at most, in milliseconds. */
const PATIENCE = 5000
const KEPT_LEAST = 5000
const KEPT_MOST = 12 * 3600 * 1000
/** The largest answer, the most servers of it and the most URLs of one, the longest text. */
const MAX_ANSWER = 64 * 1024
const MAX_SERVERS = 16
const MAX_TEXT = 512

/** Asks a URL such as the signaling server's `/ice`. */
export class IceSource {
  private kept: { servers: RTCIceServer[], freshUntil: number, validUntil: number } | undefined
  private asking: Promise<RTCIceServer[]> | undefined

  constructor (private readonly url: string) {}

  /** The servers of now. The last answer is as good as a new one while it is valid, if there is no new one. */
  async servers (): Promise<RTCIceServer[]> {
    if (this.kept !== undefined && performance.now() < this.kept.freshUntil) return this.kept.servers
    this.asking ??= this.ask().finally(() => { this.asking = undefined })
    try {
      return await this.asking
    } catch (error) {
      if (this.kept !== undefined && performance.now() < this.kept.validUntil) return this.kept.servers
      throw error
    }
  }

  private async ask (): Promise<RTCIceServer[]> {
    const answer = await fetch(this.url, { signal: AbortSignal.timeout(PATIENCE), cache: 'no-store', redirect: 'error' })
    if (answer.status !== 200 && answer.status !== 204) throw new Error(`the server answered with status ${answer.status}`)
    const text = answer.status === 204 ? '{"iceServers":[]}' : await answer.text()
    const { servers, ttl } = parseIce(text)
    const now = performance.now()
    const kept = Math.min(Math.max(ttl * 500, KEPT_LEAST), KEPT_MOST)
    this.kept = { servers, freshUntil: now + kept, validUntil: now + ttl * 1000 }
    return servers
  }
}

/** Reads `{"iceServers": [...], "ttl": seconds}`. Throws when it is something else. */
export function parseIce (text: string): { servers: RTCIceServer[], ttl: number } {
  if (text.length > MAX_ANSWER) throw new Error(`the answer is larger than ${MAX_ANSWER} bytes`)
  const { iceServers, ttl } = fieldsOf(JSON.parse(text))
  if (!Array.isArray(iceServers)) throw new Error('the answer is no list of ICE servers')
  if (iceServers.length > MAX_SERVERS) throw new Error(`the answer has ${iceServers.length} servers, limit is ${MAX_SERVERS}`)
  return { servers: iceServers.map(readServer), ttl: typeof ttl === 'number' && ttl >= 0 ? ttl : 3600 }
}

/** Of what is no object, there are none. */
function fieldsOf (value: unknown): Record<string, unknown> { return Object(value) as Record<string, unknown> }

function readServer (given: unknown): RTCIceServer {
  const server = fieldsOf(given)
  const urls: unknown[] = Array.isArray(server.urls) ? server.urls : [server.urls]
  const texts = [...urls, server.username ?? '', server.credential ?? '']
  if (urls.length > MAX_SERVERS || texts.some(text => typeof text !== 'string' || text.length > MAX_TEXT)) {
    throw new Error('the answer has a server that is none')
  }
  const read: RTCIceServer = { urls: urls as string[] }
  if (typeof server.username === 'string') read.username = server.username
  if (typeof server.credential === 'string') read.credential = server.credential
  return read
}
