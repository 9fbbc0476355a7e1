// When what happens, in milliseconds since the navigation; and every RTCPeerConnection, whoever makes it.
//
// What both of them do is marked here, by the platform's own objects, so that it is marked alike; what only they know of
// themselves (`signaling`, `channel`, `library`, `firstSync`) they mark themselves.
export const marks = { origin: performance.timeOrigin }
export const mark = name => { marks[name] ??= performance.now() }
mark('script')

/** Marks when a promise of the platform is kept. */
const kept = (name, promise) => promise.then(value => {
  mark(name)
  return value
})

export const connections = []
const Real = window.RTCPeerConnection
window.RTCPeerConnection = class extends Real {
  constructor (...given) {
    super(...given)
    mark('made')
    connections.push(this)
    this.addEventListener('iceconnectionstatechange', () => { if (/connected|completed/.test(this.iceConnectionState)) mark('connected') })
    this.addEventListener('connectionstatechange', () => { if (this.connectionState === 'connected') mark('secured') })
    this.addEventListener('icecandidate', ({ candidate }) => { if (candidate) mark(`gathered ${candidate.type} ${candidate.protocol}`) })
    this.addEventListener('datachannel', ({ channel }) => { listen(channel) })
  }

  createDataChannel (...given) { return listen(super.createDataChannel(...given)) }
  createOffer (...given) { return kept('offer made', super.createOffer(...given)) }
  setLocalDescription (...given) { return kept('described', super.setLocalDescription(...given)) }
  addIceCandidate (...given) {
    mark(`added ${/ typ (\w+)/.exec(given[0]?.candidate ?? '')?.[1]}`)
    return super.addIceCandidate(...given)
  }

  setRemoteDescription (...given) { return kept('other described', super.setRemoteDescription(...given)) }
}

function listen (channel) {
  if (channel.readyState === 'open') mark('open')
  else channel.addEventListener('open', () => { mark('open') })
  channel.addEventListener('message', () => { mark('heard') })
  const send = channel.send
  channel.send = (...given) => {
    mark('said')
    send.apply(channel, given)
  }
  return channel
}

const RealSocket = window.WebSocket
window.WebSocket = class extends RealSocket {
  constructor (...given) {
    super(...given)
    mark('dialled')
    this.addEventListener('open', () => { mark('dial answered') })
    this.addEventListener('message', ({ data }) => { if (typeof data === 'string') note('heard', data) })
  }

  send (data) {
    note('said', data)
    super.send(data)
  }
}
const note = (how, frame) => {
  const kind = /"type":"(announce|offer|answer|candidate)"/.exec(frame.replace(/\\"/g, '"'))?.[1]
  if (kind !== undefined) mark(`${kind} ${how}`)
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
