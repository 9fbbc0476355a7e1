// When what happens, in milliseconds since the navigation; and every RTCPeerConnection, whoever makes it.
export const marks = {}
export const mark = name => { marks[name] ??= performance.now() }
mark('script')

export const connections = []
const Real = window.RTCPeerConnection
window.RTCPeerConnection = class extends Real {
  constructor (...given) {
    super(...given)
    mark('offered')
    connections.push(this)
    this.addEventListener('iceconnectionstatechange', () => { if (/connected|completed/.test(this.iceConnectionState)) mark('connected') })
  }
}

/** What has been sent on data channels by now, in bytes. */
export async function sent () {
  let bytes = 0
  for (const connection of connections) {
    if (connection.connectionState !== 'connected') continue
    for (const stats of (await connection.getStats()).values()) if (stats.type === 'data-channel') bytes += stats.bytesSent
  }
  return bytes
}

export const asked = Object.fromEntries(new URLSearchParams(location.search))
/** When others' entries came, by name, on the clock that all pages share. */
export const seen = {}
export const sees = name => { seen[name] ??= Date.now() }
